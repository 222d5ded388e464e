//! All payloads, once.

use wharf_differential::{Documents, Run};

#[test]
fn there_are_at_least_two_hundred_payloads() {
    assert!(Documents::read().count() >= 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn wharf_is_never_laxer_and_sees_what_a_proxys_client_meant() {
    let run = match Run::of(Documents::read()).await {
        Ok(run) => run,
        Err(error) => panic!("{error}"),
    };
    let failures = run.failures();
    assert!(
        failures.is_empty(),
        "{} failures\n\n{}",
        failures.len(),
        failures.join("\n\n")
    );
}
