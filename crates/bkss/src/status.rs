//! `bkss status`: how a node stands.

use std::process::ExitCode;

use bkss_scheme::LedgerTime;
use serde_json::json;

use crate::{client::Client, output, text, verify::utc};

/// Options of `bkss status`.
#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    /// The node's HTTP interface
    #[arg(long, value_name = "URL")]
    node: String,
}

/// Asks the node and reports.
pub(crate) fn run(args: &Args) -> ExitCode {
    let asked = Client::new(&args.node).and_then(|client| client.status());
    let status = match asked {
        Ok(status) => status,
        Err(error) => {
            output::failed(&error);
            return error.exit_code();
        }
    };
    if output::objects() {
        output::object(&json!({
            "height": status.height,
            "head_age_ms": status.head_age_ms,
            "head_time_ms": status.head_time_ms,
            "round": status.round,
            "leader": status.leader,
            "committee": status.committee,
            "votes_needed": status.votes_needed,
            "votes_reachable": status.votes_reachable,
            "votes": status.votes,
            "votes_next": status.votes_next,
            "peers": status.peers,
            "version": status.version,
        }));
        return ExitCode::SUCCESS;
    }
    let list: Vec<_> = status.committee.iter().map(ToString::to_string).collect();
    let leader = status.leader.map_or_else(|| "none".to_owned(), |leader| leader.to_string());
    output::result(&format!(
        "block {} of {}, applied {:.1} s ago, round {}, provider {leader} leads, committee {}, {} votes \
         needed, {} reachable, this node {}, version {}",
        status.height,
        utc(LedgerTime(status.head_time_ms)),
        f64::from(u32::try_from(status.head_age_ms).unwrap_or(u32::MAX)) / 1000.0,
        status.round,
        list.join(" "),
        status.votes_needed,
        status.votes_reachable,
        match (status.votes, status.votes_next) {
            (true, true) => "votes",
            (true, false) => "votes (not yet in the next round: it has just started)",
            (false, _) => "follows without voting",
        },
        status.version,
    ));
    for peer in &status.peers {
        let connected = if peer.connected { "connected" } else { "NOT CONNECTED" };
        let seat = match (peer.seat, peer.silent) {
            (true, true) => ", in the committee, SILENT",
            (true, false) => ", in the committee",
            (false, _) => "",
        };
        let name = text::shown(&peer.name);
        output::result(&format!("provider {} \"{name}\": {connected}{seat}", peer.provider));
    }
    ExitCode::SUCCESS
}
