//! The README describes the JSON field by field: all that it names is there, and nothing else is.

mod support;

use std::collections::BTreeSet;

use serde_json::Value;

use support::{Served, json};

const README: &str = include_str!("../README.md");

/// A row of one of the tables: the fields that it names and what it says of them.
struct Row {
    fields: Vec<&'static str>,
    meaning: &'static str,
}

/// The rows of the first table and of that of the latencies.
fn documented() -> [Vec<Row>; 2] {
    let (_, about) = README.split_once("## The JSON").unwrap();
    let (first, second) = about.split_once("*Latencies* are an object").unwrap();
    [first, second].map(|table| {
        let rows = table.lines().filter_map(|line| line.strip_prefix("| `"));
        rows.map(|row| {
            let (fields, meaning) = row.split_once(" | ").unwrap();
            Row {
                fields: quoted(fields, 0),
                meaning,
            }
        })
        .collect()
    })
}

/// What stands between backticks; `open` is 1 when the first of them comes yet.
fn quoted(text: &'static str, open: usize) -> Vec<&'static str> {
    text.split('`')
        .skip(open)
        .step_by(2)
        .filter(|word| !word.is_empty())
        .collect()
}

fn row<'a>(rows: &'a [Row], field: &str) -> &'a Row {
    rows.iter().find(|row| row.fields.contains(&field)).unwrap()
}

fn keys(value: &Value) -> BTreeSet<&str> {
    value
        .as_object()
        .unwrap()
        .keys()
        .map(String::as_str)
        .collect()
}

/// The paths of all fields; what is a map, or latencies, is one field.
fn paths(prefix: &str, value: &Value, leaves: &BTreeSet<&str>, into: &mut BTreeSet<String>) {
    for (key, value) in value.as_object().unwrap() {
        let path = format!("{prefix}{key}");
        match value {
            _ if leaves.contains(path.as_str()) => {
                into.insert(path);
            }
            Value::Object(_) => paths(&format!("{path}."), value, leaves, into),
            Value::Array(all) if all[0].is_object() => {
                for value in all {
                    paths(&format!("{path}[]."), value, leaves, into);
                }
            }
            _ => {
                into.insert(path);
            }
        }
    }
}

#[test]
fn the_json_has_the_fields_of_the_readme_and_no_other() {
    let [fields, of_latencies] = documented();
    let served = Served::quick();
    let url = served.url();
    let bad = [
        "-z",
        "1s",
        "-c",
        "2",
        "--misbehave",
        "half-close",
        "--bad",
        "2",
        &url,
    ];
    let (plain, bad) = (json(&["-n", "50", "-c", "2", &url]), json(&bad));

    let latencies: BTreeSet<&str> = fields
        .iter()
        .filter(|row| row.meaning.starts_with("*latencies*"))
        .flat_map(|row| row.fields.iter().copied())
        .collect();
    let leaves: BTreeSet<&str> = latencies
        .iter()
        .copied()
        .chain(["statuses", "faults"])
        .collect();
    let named: BTreeSet<String> = fields
        .iter()
        .flat_map(|row| row.fields.iter().map(ToString::to_string))
        .collect();
    let mut there = BTreeSet::new();
    for document in [&plain, &bad] {
        paths("", document, &leaves, &mut there);
    }
    assert_eq!(there, named);
    assert!(plain["bad"].is_null());
    assert_eq!(
        plain["schema"],
        quoted(row(&fields, "schema").meaning, 1)[0]
    );

    let parts: BTreeSet<&str> = of_latencies
        .iter()
        .flat_map(|row| row.fields.iter().copied())
        .collect();
    let percentiles = quoted(row(&of_latencies, "percentiles_ns").meaning, 1);
    for path in latencies {
        let part = bad
            .pointer(&format!("/{}", path.replace('.', "/")))
            .unwrap();
        assert_eq!(keys(part), parts, "{path}");
        let percentiles = percentiles.iter().copied().collect();
        assert_eq!(keys(&part["percentiles_ns"]), percentiles, "{path}");
    }
    let kinds = quoted(row(&fields, "faults").meaning, 1);
    assert_eq!(keys(&plain["faults"]), kinds.into_iter().collect());
    assert_eq!(keys(&plain["statuses"]), BTreeSet::from(["200"]));
}
