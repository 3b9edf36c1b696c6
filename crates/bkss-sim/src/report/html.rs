//! The report as one HTML file that needs nothing else: pictures are inside as SVG.

use std::fmt::Write;

use super::{Cell, Part};

const STYLE: &str = "body{font:16px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:72rem;\
padding:0 1rem;color:#1b1b1b;background:#fff}h1{font-size:1.6rem}h2{font-size:1.15rem;\
margin:2.5rem 0 .5rem}table{border-collapse:collapse;font-size:.9rem}th,td{padding:.25rem .7rem;\
text-align:right;border-bottom:1px solid #ddd;vertical-align:top}th{border-bottom:2px solid #888}\
td.t,th.t{text-align:left}td.n{color:#888}li{margin:.2rem 0}nav a{margin-right:.8rem}\
svg{max-width:100%;height:auto}.wide{overflow-x:auto}";

/// A page of parts, with links to all of them on top.
pub fn page(title: &str, about: &str, parts: &[Part]) -> String {
    let title = escaped(title);
    let mut page = format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">\
         <title>{title}</title><style>{STYLE}</style></head>\n<body><h1>{title}</h1>\n<p>{}</p>\n<nav>",
        escaped(about)
    );
    let sheets = parts.iter().flat_map(|part| part.sheets.iter().map(|sheet| sheet.id));
    let figures = parts.iter().flat_map(|part| part.figures.iter().map(|figure| figure.id));
    for id in sheets.chain(figures) {
        let _ = write!(page, "<a href=\"#{id}\">{id}</a>");
    }
    page += "</nav>\n";
    for part in parts {
        for sheet in &part.sheets {
            let _ = writeln!(page, "<h2 id=\"{0}\">{0}: {1}</h2>", sheet.id, escaped(&sheet.title));
            table(&mut page, &sheet.columns, &sheet.rows);
            notes(&mut page, &sheet.notes);
        }
        for figure in &part.figures {
            let _ =
                writeln!(page, "<h2 id=\"{0}\">{0}: {1}</h2>", figure.id, escaped(&figure.title));
            let _ = writeln!(page, "<div class=\"wide\">{}</div>", figure.svg);
        }
    }
    page + "</body></html>\n"
}

fn table(page: &mut String, columns: &[String], rows: &[Vec<Cell>]) {
    let text = |at: usize| rows.iter().all(|row| matches!(row.get(at), Some(Cell::Text(_))));
    *page += "<div class=\"wide\"><table><tr>";
    for (at, column) in columns.iter().enumerate() {
        let class = if text(at) { " class=\"t\"" } else { "" };
        let _ = write!(page, "<th{class}>{}</th>", escaped(column));
    }
    *page += "</tr>\n";
    for row in rows {
        *page += "<tr>";
        for (at, cell) in row.iter().enumerate() {
            let class = match cell {
                Cell::NotAvailable => " class=\"n\"",
                _ if text(at) => " class=\"t\"",
                _ => "",
            };
            let _ = write!(page, "<td{class}>{}</td>", escaped(&cell.shown()));
        }
        *page += "</tr>\n";
    }
    *page += "</table></div>\n";
}

fn notes(page: &mut String, notes: &[String]) {
    if notes.is_empty() {
        return;
    }
    *page += "<ul>";
    for note in notes {
        let _ = write!(page, "<li>{}</li>", escaped(note));
    }
    *page += "</ul>\n";
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::Sheet;

    #[test]
    fn a_page_links_to_what_is_on_it_and_escapes_text() {
        let mut sheet = Sheet::new("table-0", "a < b", &["x"]);
        sheet.rows.push(vec![Cell::from("1 & 2")]);
        let parts = [Part { sheets: vec![sheet], figures: vec![] }];
        let page = page("T", "about", &parts);
        for found in ["href=\"#table-0\"", "id=\"table-0\"", "a &lt; b", "1 &amp; 2"] {
            assert!(page.contains(found), "{found} in {page}");
        }
        assert!(!page.contains("src="), "nothing is fetched");
    }
}
