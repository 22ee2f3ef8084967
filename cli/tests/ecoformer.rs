//! EcoFormer by the command.

mod common;

use common::*;
use serde_json::Value;

#[test]
fn energy_is_that_of_the_paper() {
    let table = siskin(&["energy"]);
    let table = text(&table.stdout);
    let row = |name: &str| {
        let line = table.lines().find(|line| line.contains(name)).unwrap_or_else(|| panic!("{name}"));
        line.split(['│', '┆'])
            .map(|cell| cell.trim().to_string())
            .filter(|cell| !cell.is_empty())
            .collect::<Vec<_>>()
    };
    assert_eq!(row("pvtv2-b0")[1..8], ["2.016", "1.993", "9.253", "0.535", "0.565", "2.489", "73.1 %"]);
    assert_eq!(row("pvtv2-b4")[3..8], ["73.432", "9.571", "9.824", "44.255", "39.7 %"]);
    assert_eq!(row("twins-svt-s")[3..8], ["27.363", "2.719", "2.808", "12.587", "54.0 %"]);
    for note in ["squarings", "normalization", "overstated"] {
        assert!(table.contains(note), "{note}");
    }

    let one = siskin(&["energy", "pvtv2-b0", "--json"]);
    let one: Value = serde_json::from_slice(&one.stdout).unwrap();
    assert_eq!(one.as_array().unwrap().len(), 1);
    assert_eq!(one[0]["ecoformer"]["multiplications"], 535_392_840_u64);
    assert_eq!(one[0]["softmax"]["additions"], 1_993_315_712_u64);
    let shorter = siskin(&["energy", "pvtv2-b0", "--json", "--bits", "8", "--anchors", "10"]);
    let shorter: Value = serde_json::from_slice(&shorter.stdout).unwrap();
    assert!(shorter[0]["saved"].as_f64() > one[0]["saved"].as_f64());

    refused(&siskin(&["energy", "pvtv2-b7"]), "model");
    refused(&siskin(&["energy", "--bits", "x"]), "--bits");
}
