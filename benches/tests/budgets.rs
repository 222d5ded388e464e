//! What a request and a connection may cost, where that is exact on any machine. A figure above its budget is a regression: find
//! out why, and only then think of the budget. Instructions have theirs in `benches/count.sh`.

#[path = "../src/measures.rs"]
mod measures;

use measures::{a_request, idle, writes};
use wharf_benches::{Server, Workload, runtime, small_handler_bytes};

const WHARF: [Server; 2] = [Server::Strict, Server::Httparse];
/// Once a second the date is renewed, and the counts of a run are then a little above or below.
const FOR_THE_DATE: f64 = 0.05;

#[track_caller]
fn at_most(server: Server, workload: Workload, allocations: f64, bytes: f64) {
    let runtime = runtime();
    let _guard = runtime.enter();
    let (count, heap) = a_request(server, workload);
    println!("{server:?} {workload:?}: {count:.2} allocations, {heap:.0} bytes");
    assert!(
        count <= allocations + FOR_THE_DATE,
        "{server:?} {workload:?}: {count:.2} allocations"
    );
    assert!(
        heap <= bytes,
        "{server:?} {workload:?}: {heap:.0} heap bytes"
    );
}

/// The field map of the handler's response: its indices and its entries. wharf's own is none.
#[test]
fn a_tiny_request_allocates_what_its_handler_does() {
    for server in WHARF {
        at_most(server, Workload::Tiny, 2.0, 700.0);
        at_most(server, Workload::Pipelined, 2.0, 700.0);
    }
}

/// Beside that: the request's map outgrows the response's that is recycled, twice, for its twelve fields.
#[test]
fn a_browsers_request_allocates_four_times() {
    for server in WHARF {
        at_most(server, Workload::Browser, 4.0, 2_000.0);
    }
}

/// Beside the response's map: the list of frames that the handler collects. The body itself is a part of the read.
#[test]
fn a_small_body_is_not_copied() {
    for server in WHARF {
        at_most(server, Workload::Post, 3.0, 800.0);
        at_most(server, Workload::Split, 3.0, 800.0);
    }
}

/// The body once, 4 KiB for the read that has the head, and what a tiny request takes. hyper takes 132,000.
#[test]
fn a_large_body_is_read_into_one_allocation_a_frame() {
    for server in WHARF {
        at_most(server, Workload::Upload, 6.0, 68_000.0);
    }
}

/// Its frames go out as they came.
#[test]
fn a_large_response_is_not_copied() {
    for server in WHARF {
        at_most(server, Workload::Download, 2.0, 700.0);
    }
}

#[test]
fn a_batch_is_answered_with_one_write() {
    let runtime = runtime();
    let _guard = runtime.enter();
    for server in WHARF {
        assert_eq!(writes(server, Workload::Tiny), 1);
        assert_eq!(writes(server, Workload::Pipelined), 1);
        assert_eq!(writes(server, Workload::Split), 1);
    }
}

/// hyper's own has 656, without the box that it puts the handler's future in. What isn't optimised keeps 48 more.
#[test]
fn a_connections_future_is_small() {
    let runtime = runtime();
    let _guard = runtime.enter();
    for server in WHARF {
        let (future, _) = idle(server);
        let own = future - small_handler_bytes();
        let budget = if cfg!(debug_assertions) { 700 } else { 650 };
        assert!(
            own <= budget,
            "{server:?}: {own} bytes beside the handler's"
        );
    }
}

/// Its future with the handler's, the facts and figures that the server sees, a timer: no buffer, no map, no head.
#[test]
fn an_idle_connection_keeps_no_buffers() {
    let runtime = runtime();
    let _guard = runtime.enter();
    for server in WHARF {
        let (_, kept) = idle(server);
        assert!(kept <= 2_000, "{server:?}: {kept} bytes");
    }
}
