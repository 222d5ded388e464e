//! `RESULTS.md` and `results.svg`: what was measured, on what, when and how. Every figure comes from a row.

use std::fs;
use std::process::Command;

use crate::rows::Rows;
use crate::{BoxError, Places, picture, table};

/// Which versions the table speaks of.
const LOCK: &str = include_str!("../../Cargo.lock");

pub fn write(places: &Places) -> Result<(), BoxError> {
    let rows = Rows::read_all(&places.measured)?;
    if rows.0.is_empty() {
        return Err(format!("nothing was measured yet in {}", places.measured.display()).into());
    }
    let [text, image] = ["RESULTS.md", "results.svg"].map(|name| places.written.join(name));
    fs::create_dir_all(&places.written)?;
    fs::write(&text, page(&rows))?;
    fs::write(&image, picture::draw(&rows))?;
    println!("{}\n{}", text.display(), image.display());
    Ok(())
}

fn page(rows: &Rows) -> String {
    let date = said(Command::new("date").args(["-u", "+%Y-%m-%d"]));
    let commit = said(Command::new("git").args(["describe", "--always", "--dirty"]));
    format!(
        "# wharf beside its peers\n\n\
         ![CPU a request, relative to hyper](results.svg)\n\n\
         {}\n\
         Measured {date} at commit {commit}, on {}. {}\n\n\
         ## How\n\n{METHOD}\n\
         {}",
        table::cpu(rows),
        machine(),
        versions(),
        table::others(rows),
    )
}

const METHOD: &str = "\
`benches/run.sh` does it all and writes this page; `benches/run.sh --quick` is a look in two minutes.\n\n\
- CPU a request: user and system time of the server's threads, as the kernel's scheduler accounts for it, over the answers\n  \
  in that time. The server has one thread on one core, the load client another core.\n\
- All servers run at once and are asked in turn, in rounds. Each figure is the median of the ratios to hyper in the same\n  \
  round: hyper with `pipeline_flush(true)` on a current-thread runtime is 1.00. Its second row is the median in microseconds.\n\
- 64 connections, 8 where bodies are large. Connections are opened, and asked once, before the clock starts.\n\
- The profile of the peers in Rust is fat LTO, one codegen unit, `panic = \"unwind\"`, unless the environment of the build says\n  \
  otherwise; all have the system's allocator. wharf, hyper, axum and the floor set `TCP_NODELAY`; the others have their defaults. Go\n  \
  has `GOMAXPROCS=1`; nginx has one process and sends its 10 MiB from a file of known length.\n\
- \"Off\" is wharf's connection in a bare accept loop with all deadlines a year away: no option switches a deadline or limit off,\n  \
  so this is what the server around it, reports and the live view cost, not the deadlines' own arithmetic.\n\
- The floor counts empty lines and answers each with the same bytes. may_minihttp has no `http` types and no streams; xitca-web is\n  \
  not asked for streams here.\n";

/// A kind of machine, not a name.
fn machine() -> String {
    let cpus = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpus
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let model = model.map_or("an unknown processor", |(_, model)| model);
    let cores = cpus.matches("processor\t").count();
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let virtual_one = if cpus.contains(" hypervisor") {
        ", a virtual machine"
    } else {
        ""
    };
    format!(
        "{model}, {cores} cores{virtual_one}, Linux {}",
        kernel.trim()
    )
}

fn versions() -> String {
    let mut all = Vec::new();
    for name in [
        "hyper",
        "axum",
        "actix-web",
        "ntex",
        "xitca-web",
        "may_minihttp",
        "tokio",
    ] {
        let entry = LOCK.split("[[package]]").find_map(|entry| {
            let rest = entry
                .trim_start()
                .strip_prefix(&format!("name = \"{name}\"\n"))?;
            rest.split('"').nth(1)
        });
        all.extend(entry.map(|version| format!("{name} {version}")));
    }
    let go = said(Command::new("go").arg("version"));
    all.extend(go.split(' ').nth(2).map(|go| go.replace("go", "Go ")));
    all.push(said(Command::new("sh").args([
        "-c",
        "PATH=$PATH:/usr/sbin nginx -v 2>&1 | sed 's/.*nginx.//; s/^/nginx /'",
    ])));
    all.push(said(Command::new("rustc").arg("-V")));
    all.retain(|version| !version.is_empty());
    format!("{}.", all.join(", "))
}

fn said(command: &mut Command) -> String {
    let output = command
        .output()
        .map(|output| output.stdout)
        .unwrap_or_default();
    String::from_utf8_lossy(&output).trim().to_owned()
}
