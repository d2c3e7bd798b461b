use super::{Difference, Header, LatencyTable, Published, Row, TableError, table};
use std::collections::HashSet;
use std::path::Path;

/// The rows of several tables, as of one.
#[derive(Clone, Debug, PartialEq)]
pub struct Merged {
    pub header: Header,
    /// In the order in which they were measured.
    pub rows: Vec<Row>,
    /// What was published by others.
    pub published: Vec<Published>,
    /// Rows that stood in several tables, or twice in one: each is there once.
    pub equal: usize,
    /// Validations are of the models of the tables that were merged, and not of the new one's.
    pub dropped_validations: usize,
}

impl Merged {
    /// Of `first` and `others`.
    ///
    /// # Errors
    /// The index of the first of `others` that was measured under another header, and in what it differs.
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
        let networks = all().map(|table| table.header.networks).max().unwrap_or(0);
        Ok(Merged {
            header: Header { networks, validations: vec![], ..first.header.clone() },
            equal: before - rows.len() + of_others - published.len(),
            rows,
            published,
            dropped_validations: all().map(|table| table.header.validations.len()).sum(),
        })
    }

    /// Writes a table, in the place of what is there.
    ///
    /// # Errors
    /// Where the file cannot be written.
    pub fn write(&self, path: &Path) -> Result<(), TableError> {
        Ok(table::write(path, &self.header, &self.rows, &self.published)?)
    }
}
