//! Pictures: lines and bars side by side, the same as SVG and as PNG.
//!
//! The font is embedded, so that no machine has to have one.

use plotters::{
    coord::Shift,
    prelude::*,
    style::{FontStyle, register_font},
};

use super::Figure;

/// Width and height of a picture, pixels.
const SIZE: (u32, u32) = (1280, 560);
/// Space for title and legend of a panel, pixels.
const HEAD: u32 = 74;
/// A palette that colour-blind people can read (Okabe and Ito).
const COLOURS: [RGBColor; 6] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(230, 159, 0),
    RGBColor(86, 180, 233),
];
const INK: RGBColor = RGBColor(40, 40, 40);
const FAINT: RGBColor = RGBColor(225, 225, 225);

/// A curve: its name and its points.
pub type Series = (String, Vec<(f64, f64)>);

/// A part of a picture.
#[derive(Clone, Debug)]
pub enum Panel {
    /// Curves over a common axis, from zero up.
    Lines {
        /// What is shown.
        title: String,
        /// The horizontal axis.
        x: &'static str,
        /// The vertical axis.
        y: &'static str,
        /// The curves.
        series: Vec<Series>,
        /// Whether the vertical axis begins at zero.
        from_zero: bool,
    },
    /// Bars on a logarithmic scale.
    Bars {
        /// What is shown.
        title: String,
        /// Name and length of each.
        bars: Vec<(String, f64)>,
        /// Whether the names are shown, or stand in the panel to the left.
        names: bool,
    },
}

/// A picture that could not be drawn.
#[derive(Debug, thiserror::Error)]
pub enum ChartError {
    /// The library's words.
    #[error("drawing: {0}")]
    Drawing(String),
    /// The embedded font cannot be read.
    #[error("the embedded font cannot be read")]
    Font,
    /// The pixels cannot be written as PNG.
    #[error(transparent)]
    Png(#[from] png::EncodingError),
}

/// Draws panels side by side.
///
/// # Errors
///
/// [`ChartError`].
pub fn figure(id: &'static str, title: &str, panels: &[Panel]) -> Result<Figure, ChartError> {
    register_font("sans-serif", FontStyle::Normal, dejavu::sans::regular())
        .map_err(|_| ChartError::Font)?;
    let mut svg = String::new();
    draw(&SVGBackend::with_string(&mut svg, SIZE).into_drawing_area(), panels)?;
    let mut pixels = vec![0; (SIZE.0 * SIZE.1 * 3) as usize];
    draw(&BitMapBackend::with_buffer(&mut pixels, SIZE).into_drawing_area(), panels)?;
    Ok(Figure { id, title: title.to_owned(), svg, png: encode(&pixels)? })
}

fn encode(pixels: &[u8]) -> Result<Vec<u8>, ChartError> {
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, SIZE.0, SIZE.1);
    encoder.set_color(png::ColorType::Rgb);
    encoder.set_depth(png::BitDepth::Eight);
    let mut writer = encoder.write_header()?;
    writer.write_image_data(pixels)?;
    writer.finish()?;
    Ok(bytes)
}

type Area<B> = DrawingArea<B, Shift>;

fn draw<B: DrawingBackend>(area: &Area<B>, panels: &[Panel]) -> Result<(), ChartError> {
    area.fill(&WHITE).map_err(drawing)?;
    let (inner, mut left) = (SIZE.0, 0);
    // Names of bars take the room of half a panel.
    let weight =
        |panel: &Panel| if matches!(panel, Panel::Bars { names: true, .. }) { 3 } else { 2 };
    let all: u32 = panels.iter().map(weight).sum();
    for panel in panels {
        let width = inner * weight(panel) / all.max(1);
        let part = area.clone().shrink((left, 0), (width, SIZE.1));
        left += width;
        match panel {
            Panel::Lines { title, x, y, series, from_zero } => {
                heading(&part, title)?;
                legend(&part, series)?;
                lines(&part, (x, y), series, *from_zero)?;
            }
            Panel::Bars { title, bars, names } => {
                heading(&part, title)?;
                self::bars(&part, bars, *names)?;
            }
        }
    }
    area.present().map_err(drawing)
}

#[expect(clippy::needless_pass_by_value, reason = "what map_err wants")]
fn drawing<E: std::error::Error + Send + Sync>(error: DrawingAreaErrorKind<E>) -> ChartError {
    ChartError::Drawing(error.to_string())
}

fn font(size: u32) -> TextStyle<'static> {
    ("sans-serif", size).into_font().color(&INK)
}

fn heading<B: DrawingBackend>(area: &Area<B>, title: &str) -> Result<(), ChartError> {
    area.draw(&Text::new(title.to_owned(), (24, 16), font(19))).map_err(drawing)
}

fn legend<B: DrawingBackend>(area: &Area<B>, series: &[Series]) -> Result<(), ChartError> {
    let mut left = 24;
    for ((name, _), colour) in series.iter().zip(COLOURS.iter().cycle()) {
        let swatch = Rectangle::new([(left, 50), (left + 14, 60)], colour.filled());
        area.draw(&swatch).map_err(drawing)?;
        let style = font(14);
        let (width, _) = area.estimate_text_size(name, &style).map_err(drawing)?;
        area.draw(&Text::new(name.clone(), (left + 20, 47), style)).map_err(drawing)?;
        left += i32::try_from(width).unwrap_or(100) + 42;
    }
    Ok(())
}

fn lines<B: DrawingBackend>(
    area: &Area<B>,
    (x, y): (&str, &str),
    series: &[Series],
    from_zero: bool,
) -> Result<(), ChartError> {
    let points = || series.iter().flat_map(|(_, points)| points);
    if points().next().is_none() {
        let text = Text::new("not measured", (24, 90), font(15));
        return area.draw(&text).map_err(drawing);
    }
    let ends = |values: &mut dyn Iterator<Item = f64>| {
        values.fold((f64::MAX, f64::MIN), |(least, most), v| (least.min(v), most.max(v)))
    };
    let (first, last) = ends(&mut points().map(|(x, _)| *x));
    let (lowest, highest) = ends(&mut points().map(|(_, y)| *y));
    let room = (highest - lowest).max(highest.abs() * 0.02).max(f64::MIN_POSITIVE) * 0.08;
    // The library looks for labels in vain where there is nearly no axis.
    let side = if last - first < 1.0 { 1.0 } else { (last - first) * 0.02 };
    let bottom = if from_zero { 0.0 } else { lowest - room };
    let mut chart = ChartBuilder::on(area)
        .margin_top(HEAD)
        .margin_right(24)
        .margin_bottom(12)
        .margin_left(12)
        .x_label_area_size(52)
        .y_label_area_size(74)
        .build_cartesian_2d(first - side..last + side, bottom..highest + room)
        .map_err(drawing)?;
    chart
        .configure_mesh()
        .x_desc(x)
        .y_desc(y)
        .x_labels(6)
        .y_labels(7)
        .label_style(font(14))
        .axis_desc_style(font(15))
        .light_line_style(TRANSPARENT)
        .bold_line_style(FAINT)
        .axis_style(INK)
        .x_label_formatter(&|value| short(*value))
        .y_label_formatter(&|value| short(*value))
        .draw()
        .map_err(drawing)?;
    for ((_, points), colour) in series.iter().zip(COLOURS.iter().cycle()) {
        let line = LineSeries::new(points.iter().copied(), colour.stroke_width(2));
        chart.draw_series(line).map_err(drawing)?;
        let dots = points.iter().map(|point| Circle::new(*point, 4, colour.filled()));
        chart.draw_series(dots).map_err(drawing)?;
    }
    Ok(())
}

/// A number without zeros behind the point.
fn short(value: f64) -> String {
    let text = format!("{value:.3}");
    let text = text.trim_end_matches('0').trim_end_matches('.');
    if text == "-0" { "0".to_owned() } else { text.to_owned() }
}

fn bars<B: DrawingBackend>(
    area: &Area<B>,
    bars: &[(String, f64)],
    names: bool,
) -> Result<(), ChartError> {
    let (width, height) = area.dim_in_pixel();
    let left = if names { 216 } else { 24 };
    let right = i32::try_from(width).unwrap_or(0) - 92;
    let count = i32::try_from(bars.len().max(1)).unwrap_or(1);
    let step = (i32::try_from(height - HEAD).unwrap_or(0) - 30) / count;
    let least = bars.iter().map(|(_, value)| *value).fold(f64::MAX, f64::min).log10() - 0.5;
    let most = bars.iter().map(|(_, value)| *value).fold(f64::MIN, f64::max).log10();
    for ((name, value), place) in bars.iter().zip(0..) {
        let top = 64 + place * step;
        let part = (value.log10() - least) / (most - least).max(f64::MIN_POSITIVE);
        let end = left + pixels(part * f64::from(right - left));
        let colour = if place == 0 { COLOURS[1] } else { COLOURS[0] };
        let bar = Rectangle::new([(left, top + 8), (end, top + step - 10)], colour.filled());
        area.draw(&bar).map_err(drawing)?;
        let middle = top + step / 2 - 9;
        if names {
            area.draw(&Text::new(name.clone(), (24, middle), font(15))).map_err(drawing)?;
        }
        let text = Text::new(figures(*value), (end + 8, middle), font(15));
        area.draw(&text).map_err(drawing)?;
    }
    Ok(())
}

#[expect(clippy::cast_possible_truncation, reason = "inside a picture")]
fn pixels(length: f64) -> i32 {
    length.round() as i32
}

/// Three figures that count.
fn figures(value: f64) -> String {
    let digits = if value >= 100.0 {
        0
    } else if value >= 10.0 {
        1
    } else {
        2
    };
    super::grouped(value, digits)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_picture_is_svg_and_png_without_fonts_of_the_system() {
        let panels = [
            Panel::Lines {
                title: "lines".to_owned(),
                x: "x",
                y: "y",
                series: vec![("one".to_owned(), vec![(1.0, 2.0), (2.0, 4.0)])],
                from_zero: true,
            },
            Panel::Bars {
                title: "bars".to_owned(),
                bars: vec![("b".to_owned(), 3.0)],
                names: true,
            },
        ];
        let figure = figure("figure-0", "nothing", &panels).unwrap();
        assert!(figure.svg.starts_with("<svg") && figure.svg.contains("lines"));
        let decoder = png::Decoder::new(figure.png.as_slice());
        let mut reader = decoder.read_info().unwrap();
        let mut pixels = vec![0; reader.output_buffer_size()];
        reader.next_frame(&mut pixels).unwrap();
        // Letters are dark pixels in the headings.
        let dark = |row: usize| {
            let start = row * SIZE.0 as usize * 3;
            pixels[start..start + SIZE.0 as usize * 3].chunks(3).any(|pixel| pixel[0] < 90)
        };
        assert!((16..40).any(dark), "the title is written");
    }

    #[test]
    fn a_panel_without_points_says_so() {
        let panel = Panel::Lines {
            title: "none".to_owned(),
            x: "x",
            y: "y",
            series: vec![],
            from_zero: true,
        };
        assert!(figure("figure-0", "nothing", &[panel]).unwrap().svg.contains("not measured"));
    }

    #[test]
    fn axis_labels_are_short() {
        for (value, text) in [(0.289, "0.289"), (10.0, "10"), (0.5, "0.5"), (-0.0, "0")] {
            assert_eq!(short(value), text);
        }
    }
}
