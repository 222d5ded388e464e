//! What a request allocates, what an idle connection keeps, how large its future is: wharf beside hyper, by a counting
//! allocator. All of it is exact, on any machine.

use std::task::{Context, Waker};

use allocation_counter::{AllocationInfo, measure};
use wharf_benches::{Canned, Server, Workload, run, runtime};

fn main() {
    let runtime = runtime();
    let _guard = runtime.enter();
    println!("allocations and heap bytes a request");
    print!("{:<12}", "");
    for workload in Workload::ALL {
        print!(" {:>16}", workload.name());
    }
    println!();
    for server in Server::ALL {
        print!("{:<12}", server.name());
        for workload in Workload::ALL {
            let (count, bytes) = a_request(server, workload);
            print!(" {:>16}", format!("{count:.1} / {bytes:.0}"));
        }
        println!();
    }
    println!(
        "\nbytes a connection: its future, and what it keeps when it is idle after a tiny request"
    );
    for server in Server::ALL {
        let (future, idle) = idle(server);
        println!("{:<12} {future:>8} {idle:>8}", server.name());
    }
}

/// The slope between two counts, so that buffers and caches don't count.
fn a_request(server: Server, workload: Workload) -> (f64, f64) {
    const FEW: u64 = 100;
    const MANY: u64 = 600;
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

fn idle(server: Server) -> (usize, i64) {
    const CONNECTIONS: i64 = 100;
    let mut cx = Context::from_waker(Waker::noop());
    let mut connections = Vec::with_capacity(CONNECTIONS as usize);
    let mut size = 0;
    // What is kept for a thread is there before.
    run(server, Workload::Tiny, 1);
    let kept = measure(|| {
        for _ in 0..CONNECTIONS {
            let wire = Canned::new(Workload::Tiny.reads(), 1).and_stays();
            let (mut connection, future) = server.connection(wire, Workload::Tiny);
            for _ in 0..4 {
                assert!(connection.as_mut().poll(&mut cx).is_pending());
            }
            connections.push(connection);
            size = future;
        }
    });
    // The client's own part of it: its reads.
    let client = measure(|| std::mem::forget(Workload::Tiny.reads())).bytes_current;
    (size, kept.bytes_current / CONNECTIONS - client)
}
