//! Tables that fit the terminal: one column gives way, the others keep their width.

use crate::Surface;
use crate::format::{pad, pad_left, truncate, width};

/// Columns between two columns.
const GAP_COLUMNS: usize = 2;
/// Least width of the column that gives way, columns.
const FLEXIBLE_COLUMNS_MIN: usize = 12;

/// How the cells of a column are coloured.
pub type Painter = fn(Surface, &str) -> String;

/// One column.
#[derive(Debug, Clone, Copy)]
pub struct Column {
    /// Its heading.
    title: &'static str,
    /// Numbers stand at the right.
    right: bool,
    /// It is cut when the terminal is too narrow.
    flexible: bool,
    /// Colour of its cells by their text.
    painter: Option<Painter>,
}

impl Column {
    /// A column of text.
    #[must_use]
    pub const fn new(title: &'static str) -> Self {
        Self { title, right: false, flexible: false, painter: None }
    }

    /// Numbers: they stand at the right.
    #[must_use]
    pub const fn right(mut self) -> Self {
        self.right = true;
        self
    }

    /// The column that gives way.
    #[must_use]
    pub const fn flexible(mut self) -> Self {
        self.flexible = true;
        self
    }

    /// Its cells are coloured.
    #[must_use]
    pub const fn painted(mut self, painter: Painter) -> Self {
        self.painter = Some(painter);
        self
    }
}

/// Draws rows below headings. Cells are clean single lines; a short row is filled with empty cells.
#[must_use]
pub fn table(surface: Surface, columns: &[Column], rows: &[Vec<String>]) -> String {
    let mut widths: Vec<usize> = columns.iter().map(|column| width(column.title)).collect();
    for row in rows {
        for (cell, widest) in row.iter().zip(&mut widths) {
            *widest = (*widest).max(width(cell));
        }
    }
    if let Some(available) = surface.columns {
        shrink(columns, &mut widths, available);
    }
    let headings: Vec<String> = columns.iter().map(|column| column.title.into()).collect();
    let mut output = surface.dim(&draw(surface, columns, &widths, &headings, false));
    output.push('\n');
    for row in rows {
        output.push_str(&draw(surface, columns, &widths, row, true));
        output.push('\n');
    }
    output
}

fn shrink(columns: &[Column], widths: &mut [usize], available: usize) {
    let gaps = columns.len().saturating_sub(1) * GAP_COLUMNS;
    let flexible = columns.iter().filter(|column| column.flexible).count();
    let fixed: usize = columns
        .iter()
        .zip(widths.iter())
        .filter(|(column, _)| !column.flexible)
        .map(|(_, width)| width)
        .sum();
    let share = available
        .saturating_sub(gaps + fixed)
        .checked_div(flexible)
        .unwrap_or(0)
        .max(FLEXIBLE_COLUMNS_MIN);
    for (column, width) in columns.iter().zip(widths) {
        if column.flexible {
            *width = (*width).min(share);
        }
    }
}

fn draw(
    surface: Surface,
    columns: &[Column],
    widths: &[usize],
    row: &[String],
    paint: bool,
) -> String {
    let mut line = String::new();
    for (index, (column, &columns_wide)) in columns.iter().zip(widths).enumerate() {
        if index > 0 {
            line.push_str(&" ".repeat(GAP_COLUMNS));
        }
        let cell = row.get(index).map_or("", String::as_str);
        let cell = truncate(cell, columns_wide, surface.unicode);
        let padding = columns_wide.saturating_sub(width(&cell));
        let last = index + 1 == columns.len();
        let placed = if column.right {
            pad_left(&cell, columns_wide)
        } else if last {
            cell.clone()
        } else {
            pad(&cell, columns_wide)
        };
        match column.painter {
            Some(painter) if paint => {
                let spaces = " ".repeat(padding);
                let painted = painter(surface, &cell);
                match (column.right, last) {
                    (true, _) => line.push_str(&format!("{spaces}{painted}")),
                    (false, true) => line.push_str(&painted),
                    (false, false) => line.push_str(&format!("{painted}{spaces}")),
                }
            }
            _ => line.push_str(&placed),
        }
    }
    line.trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    const COLUMNS: [Column; 3] =
        [Column::new("ID"), Column::new("TASK").flexible(), Column::new("MS").right()];

    fn rows() -> Vec<Vec<String>> {
        vec![
            vec!["a1".into(), "fix the very long thing".into(), "7".into()],
            vec!["b2".into(), "日本語".into(), "1234".into()],
        ]
    }

    #[test]
    fn one_column_gives_way() {
        let narrow = Surface { columns: Some(26), ..Surface::PLAIN };
        let text = table(narrow, &COLUMNS, &rows());
        assert_eq!(
            text,
            "ID  TASK                MS\na1  fix the very lo…     7\nb2  日本語            1234\n"
        );
    }

    #[test]
    fn nothing_is_cut_in_a_pipe() {
        let text = table(Surface::PLAIN, &COLUMNS, &rows());
        assert!(text.contains("fix the very long thing"));
        assert!(!text.contains('\x1b'));
    }
}
