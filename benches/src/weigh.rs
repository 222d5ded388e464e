//! What a request allocates, what an idle connection keeps, how large its future is: wharf beside hyper, by a counting
//! allocator. All of it is exact, on any machine.

mod measures;

use measures::{a_request, idle};
use wharf_benches::{Server, Workload, runtime, small_handler_bytes};

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
        // hyper boxes the handler's future, so nothing of it is in the connection's.
        let own = match server {
            Server::Hyper | Server::HyperFlush => future,
            _ => future - small_handler_bytes(),
        };
        println!("{:<12} {future:>8} {own:>8} {idle:>8}", server.name());
    }
}
