//! A bar a server, a panel a workload, hyper as the line at one. In black, white and hatching, so that print shows it too.

use std::fmt::Write;

use crate::rows::Rows;
use crate::workloads::{self, Workload};

/// Beyond this a bar is cut, and only its number tells.
const MOST: f64 = 2.5;
const ROW: f64 = 17.0;
const PANEL: f64 = 310.0;
const NAMES: f64 = 92.0;
const BAR: f64 = 170.0;
const COLUMNS: usize = 3;

const SHOWN: [(&str, &str); 13] = [
    ("floor", "raw epoll"),
    ("wharf", "wharf"),
    ("hyper", "hyper (flush)"),
    ("hyper-default", "hyper"),
    ("wharf-axum", "axum on wharf"),
    ("axum", "axum::serve"),
    ("actix", "actix-web"),
    ("ntex", "ntex"),
    ("xitca", "xitca-web"),
    ("may", "may_minihttp"),
    ("nginx", "nginx"),
    ("fasthttp", "Go fasthttp"),
    ("nethttp", "Go net/http"),
];

pub fn draw(rows: &Rows) -> String {
    let panels: Vec<Workload> = workloads::NAMES
        .into_iter()
        .filter_map(workloads::find)
        .collect();
    let height = ROW * (SHOWN.len() + 3) as f64;
    let (width, lines) = (
        PANEL * COLUMNS as f64 + 20.0,
        panels.len().div_ceil(COLUMNS),
    );
    let whole = 44.0 + height * lines as f64;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {whole}\" font-family=\"sans-serif\" font-size=\"11\">\n\
         <title>CPU a request, relative to hyper</title>\n\
         <defs><pattern id=\"hatch\" width=\"5\" height=\"5\" patternUnits=\"userSpaceOnUse\" patternTransform=\"rotate(45)\">\
         <rect width=\"5\" height=\"5\" fill=\"white\"/><rect width=\"2.5\" height=\"5\" fill=\"black\"/></pattern></defs>\n\
         <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n\
         <text x=\"12\" y=\"24\" font-size=\"15\" font-weight=\"bold\">CPU a request on loopback; hyper = 1 (dashed line), less is better</text>\n"
    );
    for (number, workload) in panels.iter().enumerate() {
        let x = 12.0 + PANEL * (number % COLUMNS) as f64;
        let y = 44.0 + height * (number / COLUMNS) as f64;
        panel(&mut svg, rows, workload, x, y);
    }
    svg + "</svg>\n"
}

fn panel(svg: &mut String, rows: &Rows, workload: &Workload, x: f64, y: f64) {
    let title = workload.title;
    let _ = writeln!(
        svg,
        "<text x=\"{x}\" y=\"{:.1}\" font-weight=\"bold\">{title}</text>",
        y + 12.0
    );
    let (left, mut top) = (x + NAMES, y + 18.0);
    let one = left + BAR / MOST;
    for (name, shown) in SHOWN {
        let Some(ratio) = rows.ratio(workload.name, name, "hyper", "cpu") else {
            continue;
        };
        let (fill, weight) = match name {
            "wharf" => ("black", "bold"),
            "wharf-axum" => ("url(#hatch)", "bold"),
            _ => ("#ccc", "normal"),
        };
        let length = BAR * ratio.min(MOST) / MOST;
        let base = top + 12.0;
        let cut = if ratio > MOST { " ▸" } else { "" };
        let _ = writeln!(
            svg,
            "<text x=\"{:.1}\" y=\"{base:.1}\" text-anchor=\"end\" font-weight=\"{weight}\">{shown}</text>\
             <rect x=\"{left:.1}\" y=\"{:.1}\" width=\"{length:.1}\" height=\"11\" fill=\"{fill}\" stroke=\"black\" stroke-width=\"0.7\"/>\
             <text x=\"{:.1}\" y=\"{base:.1}\" font-weight=\"{weight}\">{cut} {ratio:.2}</text>",
            left - 5.0,
            top + 2.5,
            left + length + 3.0,
        );
        top += ROW;
    }
    let _ = writeln!(
        svg,
        "<line x1=\"{one:.1}\" x2=\"{one:.1}\" y1=\"{:.1}\" y2=\"{top:.1}\" stroke=\"black\" stroke-dasharray=\"3 2\"/>",
        y + 16.0,
    );
}
