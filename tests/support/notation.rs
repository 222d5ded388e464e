//! The notation of documents that hold bytes: sections, fenced blocks, tables whose cells stand in for names, escapes.
//! It knows nothing of HTTP, nor what the blocks are for.

/// What stands below one `##` heading.
#[derive(Default)]
pub struct Section<'a> {
    pub line: usize,
    pub title: &'a str,
    pub blocks: Vec<Block<'a>>,
    /// The lines that are neither heading, block nor table.
    pub prose: Vec<&'a str>,
    columns: Vec<&'a str>,
    rows: Vec<(usize, Vec<&'a str>)>,
}

/// A fenced block, its kind behind the fence.
pub struct Block<'a> {
    pub kind: &'a str,
    pub line: usize,
    pub lines: Vec<&'a str>,
}

/// The sections of a document; the first is what stands before any heading.
pub fn sections(text: &str) -> Vec<Section<'_>> {
    let mut sections = vec![Section::default()];
    let mut lines = text.lines().enumerate().map(|(at, line)| (at + 1, line));
    while let Some((at, line)) = lines.next() {
        let section = sections.last_mut().unwrap();
        if let Some(title) = line.strip_prefix("## ") {
            sections.push(Section {
                line: at,
                title,
                ..Section::default()
            });
        } else if let Some(kind) = line.strip_prefix("```") {
            let block = lines
                .by_ref()
                .map(|(_, line)| line)
                .take_while(|line| *line != "```")
                .collect();
            section.blocks.push(Block {
                kind,
                line: at,
                lines: block,
            });
        } else if line.starts_with('|') && !line.starts_with("|--") && !line.starts_with("| --") {
            let cells: Vec<&str> = line.trim_matches('|').split('|').map(cell).collect();
            if section.columns.is_empty() {
                section.columns = cells;
            } else {
                section.rows.push((at, cells));
            }
        } else if !line.starts_with('|') {
            section.prose.push(line);
        }
    }
    sections
}

/// Between back ticks a cell keeps its spaces.
fn cell(cell: &str) -> &str {
    let cell = cell.trim();
    cell.strip_prefix('`')
        .and_then(|cell| cell.strip_suffix('`'))
        .unwrap_or(cell)
}

impl<'a> Section<'a> {
    /// The rows of its table, each with its line; without a table one empty row, at the heading.
    pub fn rows(&self, file: &str) -> Vec<(usize, Row<'a>)> {
        if self.rows.is_empty() {
            return vec![(self.line, Row::default())];
        }
        let row = |(line, cells): &(usize, Vec<&'a str>)| {
            assert_eq!(
                cells.len(),
                self.columns.len(),
                "{file}:{line}: as many cells as columns"
            );
            let columns = self.columns.iter().copied();
            (*line, Row(columns.zip(cells.iter().copied()).collect()))
        };
        self.rows.iter().map(row).collect()
    }
}

/// The cells of a row, each with the name of its column.
#[derive(Default)]
pub struct Row<'a>(Vec<(&'a str, &'a str)>);

impl<'a> Row<'a> {
    /// The cell of the first column.
    pub fn first(&self) -> Option<&'a str> {
        self.0.first().map(|(_, cell)| *cell)
    }

    /// The cell of that column.
    pub fn cell(&self, column: &str) -> Option<&'a str> {
        let found = self.0.iter().find(|(name, _)| *name == column);
        found.map(|(_, cell)| *cell)
    }

    /// Puts the cells in place of `{column}`.
    pub fn substitute(&self, line: &str) -> String {
        self.0.iter().fold(line.to_owned(), |line, (column, cell)| {
            line.replace(&format!("{{{column}}}"), cell)
        })
    }
}

/// The bytes of one line: escapes and repetitions resolved, CR LF behind it unless it ends in `\`, `\r` or `\n`.
pub fn wire(line: &str) -> Vec<u8> {
    let is_open = ends_with_escape(line, &["\\r", "\\n"]);
    let (line, is_continued) = match line.strip_suffix('\\') {
        Some(line) if !line.ends_with('\\') => (line, true),
        _ => (line, false),
    };
    let mut bytes = unescape(&repeat(line));
    if !is_open && !is_continued {
        bytes.extend(b"\r\n");
    }
    bytes
}

fn ends_with_escape(line: &str, escapes: &[&str]) -> bool {
    escapes.iter().any(|escape| {
        line.strip_suffix(escape)
            .is_some_and(|before| !before.ends_with('\\'))
    })
}

/// `{"text" * 3}` is `texttexttext`.
fn repeat(line: &str) -> String {
    let Some((before, rest)) = line.split_once("{\"") else {
        return line.to_owned();
    };
    let Some((text, rest)) = rest.split_once("\" * ") else {
        return line.to_owned();
    };
    let Some((count, rest)) = rest.split_once('}') else {
        return line.to_owned();
    };
    let count = count
        .parse()
        .unwrap_or_else(|_| panic!("not a number: {count:?}"));
    format!("{before}{}{}", text.repeat(count), repeat(rest))
}

/// `\r`, `\n`, `\t`, `\\`, `\xHH`.
fn unescape(text: &str) -> Vec<u8> {
    let mut bytes = vec![];
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        if byte != b'\\' {
            bytes.push(byte);
            continue;
        }
        let (&escape, after) = rest.split_first().expect("something behind a backslash");
        rest = after;
        bytes.push(match escape {
            b'r' => b'\r',
            b'n' => b'\n',
            b't' => b'\t',
            b'\\' => b'\\',
            b'x' => {
                let digits = std::str::from_utf8(&rest[..2]).expect("two digits");
                rest = &rest[2..];
                u8::from_str_radix(digits, 16).expect("two hexadecimal digits")
            }
            other => panic!("\\{} is no escape, in {text:?}", char::from(other)),
        });
    }
    bytes
}
