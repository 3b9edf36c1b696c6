//! The log of a long-running command, on standard error.

use bkss_node::settings::LogFormat;
use tracing_subscriber::EnvFilter;

/// Starts the log. A mere level is that of this program; the engine's libraries then tell warnings.
///
/// # Errors
///
/// The filter, if it is none.
pub(crate) fn start(format: LogFormat, filter: &str) -> Result<(), String> {
    let level = filter.parse::<tracing::Level>().is_ok();
    // Taken for the name of a module, a misspelt level would silence everything.
    let word = !filter.contains(['=', ',', ':']) && filter != "off";
    if word && !level {
        return Err(format!(
            "expected error, warn, info, debug, trace, off or a filter such as bkss_node=debug, \
             found {filter}"
        ));
    }
    let filter = match filter {
        _ if level => format!("warn,bkss={filter},bkss_node={filter},bkss_ledger={filter}"),
        other => other.to_owned(),
    };
    let parsed = EnvFilter::try_new(filter).map_err(|error| error.to_string())?;
    let builder = tracing_subscriber::fmt()
        .with_env_filter(parsed)
        .with_writer(std::io::stderr)
        // It would be told on the same standard error, and a node whose log cannot be written goes on.
        .log_internal_errors(false);
    // A second start in one process keeps the first log.
    let _ = match format {
        LogFormat::Text => builder.with_ansi(false).try_init(),
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    };
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_misspelt_level_is_refused() {
        for word in ["verbose", "warning", "inf"] {
            let refused = start(LogFormat::Text, word);
            assert!(refused.is_err_and(|reason| reason.contains(&format!("found {word}"))));
        }
    }
}
