//! `bench ledger` measures what it says, also with a provider dead.

use serde_json::Value;

use crate::shared::{bkss, code, said};

#[test]
fn a_ledger_is_measured_with_a_provider_dead() {
    let output =
        bkss(&["bench", "ledger", "--meters", "100", "--seconds", "8", "--dead", "1", "--json"]);
    assert_eq!(code(&output), 0, "{}", said(&output));
    let lines = String::from_utf8(output.stdout).unwrap();
    let figures: Value = serde_json::from_str(&lines).unwrap();
    for (key, expected) in [("providers", 4), ("dead", 1), ("meters", 100), ("refused", 0)] {
        assert_eq!(figures[key], expected, "{key}");
    }
    for key in
        ["readings", "readings_per_s", "cpu_s_per_million", "disk_bytes_per_reading", "blocks"]
    {
        assert!(figures[key].as_f64().unwrap() > 0.0, "{key}: {figures}");
    }
    assert!(figures["finality_ms"]["p50"].as_f64() <= figures["finality_ms"]["p99"].as_f64());
}

#[test]
fn more_dead_providers_than_a_ledger_survives_are_refused() {
    let output = bkss(&["bench", "ledger", "--dead", "2"]);
    assert_eq!(code(&output), 2);
    assert!(said(&output).contains("at most 1 may be dead"), "{}", said(&output));
}
