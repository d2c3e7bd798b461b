use super::{Difference, Header, LatencyTable, Planned, Published, Row, TableError, file};
use std::collections::HashSet;
use std::path::Path;

/// The rows of several tables, merged into one table.
#[derive(Clone, Debug, PartialEq)]
pub struct Merged {
    pub header: Header,
    /// In the order in which they were measured.
    pub rows: Vec<Row>,
    /// Rows that others published.
    pub published: Vec<Published>,
    /// The number of rows that occurred in several tables, or twice in one, and are kept once.
    pub equal: usize,
    /// The most networks that any of the tables planned, for each number of classes.
    pub planned: Vec<Planned>,
}

impl Merged {
    /// Merges `first` and `others`.
    ///
    /// # Errors
    /// The index of the first of `others` that was measured under another header, and what differs.
    pub fn of(first: &LatencyTable, others: &[LatencyTable]) -> Result<Merged, (usize, Difference)> {
        let differs = |(i, other): (usize, &LatencyTable)| Some((i, other.header.difference(&first.header)?));
        if let Some(difference) = others.iter().enumerate().find_map(differs) {
            return Err(difference);
        }
        let all = || [first].into_iter().chain(others);
        let mut seen = HashSet::new();
        let mut rows: Vec<Row> = all().flat_map(|table| table.rows()).cloned().collect();
        let before = rows.len();
        rows.retain(|row| seen.insert(serde_json::to_string(row).unwrap_or_default()));
        rows.sort_by_key(|row| row.measured_at);
        let mut published: Vec<Published> = all().flat_map(|table| table.published()).cloned().collect();
        let of_others = published.len();
        published.retain(|row| seen.insert(serde_json::to_string(row).unwrap_or_default()));
        let mut classes: Vec<usize> = all().flat_map(LatencyTable::classes).collect();
        classes.sort_unstable();
        classes.dedup();
        let most = |classes| all().map(|table| table.planned(classes)).max().unwrap_or(0);
        let planned = classes.into_iter().map(|classes| Planned { networks: most(classes), classes });
        Ok(Merged {
            header: first.header.clone(),
            planned: planned.collect(),
            equal: before - rows.len() + of_others - published.len(),
            rows,
            published,
        })
    }

    /// Writes the table, replacing an existing file.
    ///
    /// # Errors
    /// Fails if the file cannot be written.
    pub fn write(&self, path: &Path) -> Result<(), TableError> {
        Ok(file::write(path, &self.header, &self.planned, &self.rows, &self.published)?)
    }
}
