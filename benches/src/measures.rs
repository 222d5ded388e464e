//! What a counting allocator says of a request and of an idle connection. A file of its own and not the library's, because
//! whoever counts instructions must not link the counting allocator.

use std::sync::atomic::Ordering::Relaxed;
use std::task::{Context, Waker};

use allocation_counter::{AllocationInfo, measure};
use wharf_benches::{Canned, Server, Workload, run};

/// Allocations and heap bytes a request: the slope between two counts, so that buffers and caches don't count.
pub(crate) fn a_request(server: Server, workload: Workload) -> (f64, f64) {
    const FEW: u64 = 100;
    const MANY: u64 = 600;
    // What is kept for a thread is there before.
    run(server, workload, FEW);
    let few = measure(|| run(server, workload, FEW));
    let many = measure(|| run(server, workload, MANY));
    let slope = |of: fn(&AllocationInfo) -> u64| {
        let more = of(&many) as f64 - of(&few) as f64;
        more / ((MANY - FEW) * workload.requests()) as f64
    };
    (
        slope(|info| info.count_total),
        slope(|info| info.bytes_total),
    )
}

/// The size of a connection's future, and what all of it keeps when it is idle after a tiny request.
pub(crate) fn idle(server: Server) -> (usize, i64) {
    const CONNECTIONS: i64 = 100;
    let mut cx = Context::from_waker(Waker::noop());
    let mut connections = Vec::with_capacity(CONNECTIONS as usize);
    let mut size = 0;
    run(server, Workload::Tiny, 1);
    let kept = measure(|| {
        for _ in 0..CONNECTIONS {
            let (mut connection, future) = server.connection(client(), Workload::Tiny);
            for _ in 0..4 {
                assert!(connection.as_mut().poll(&mut cx).is_pending());
            }
            connections.push(connection);
            size = future;
        }
    });
    let client = measure(|| std::mem::forget(client())).bytes_current;
    (size, kept.bytes_current / CONNECTIONS - client)
}

fn client() -> Canned {
    Canned::new(Workload::Tiny.reads(), 1).and_stays()
}

/// Writes a round.
#[allow(dead_code, reason = "the table doesn't show it, the budgets do")]
pub(crate) fn writes(server: Server, workload: Workload) -> u64 {
    const ROUNDS: u64 = 50;
    let wire = Canned::new(workload.reads(), ROUNDS);
    let writes = wire.writes();
    let (mut connection, _) = server.connection(wire, workload);
    let mut cx = Context::from_waker(Waker::noop());
    while connection.as_mut().poll(&mut cx).is_pending() {}
    writes.load(Relaxed).div_ceil(ROUNDS)
}
