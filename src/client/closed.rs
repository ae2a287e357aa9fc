//! New directories that are closed to their owner. Once one is made nothing goes into it any more, unless
//! root is the owner: all that is in it goes with it.
use super::pack::Item;
use std::collections::BTreeSet;

/// What an owner needs to put something into a directory: write and search.
pub(super) const OPEN: u32 = 0o300;

/// Their paths.
pub(super) struct Closed(BTreeSet<String>);

impl Closed {
    /// Those among directories that are to be made.
    pub(super) fn among<'i>(directories: impl Iterator<Item = &'i Item>) -> Closed {
        let closed = directories.filter(|item| item.mode & OPEN != OPEN);
        Closed(closed.map(|item| item.path.clone()).collect())
    }

    /// The topmost one that this path is, or is in.
    pub(super) fn around(&self, path: &str) -> Option<&str> {
        let above = path.match_indices('/').map(|(at, _)| &path[..at]);
        above.chain([path]).find_map(|path| self.0.get(path)).map(String::as_str)
    }

    pub(super) fn is_around(&self, path: &str) -> bool {
        self.around(path).is_some()
    }

    /// What goes together, in its order: each of them with all that is in it, and anything else by itself.
    pub(super) fn units<'i>(&self, items: &'i mut [(Item, u64)]) -> impl Iterator<Item = &'i [(Item, u64)]> {
        items.sort_by(|(a, _), (b, _)| self.around(&a.path).cmp(&self.around(&b.path)));
        items.chunk_by(|(a, _), (b, _)| {
            self.is_around(&a.path) && self.around(&a.path) == self.around(&b.path)
        })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn what_goes_together_is_found() {
        let item = |path: &str, mode| (Item { path: path.to_owned(), mode, is_directory: true }, 0);
        let modes = [0o755, 0o555, 0o555, 0o755, 0o644, 0o300, 0o755, 0o755];
        let paths = ["a", "a/b", "a/b/c", "a/b/d", "e", "f", "f/g", "a/b-"];
        let mut items: Vec<_> = paths.iter().zip(modes).map(|(path, mode)| item(path, mode)).collect();
        let closed = Closed::among(items.iter().map(|(item, _)| item));
        items.extend(["a/h", "a/b/i", "e/j", "e-"].map(|path| item(path, 0)));
        let units: Vec<Vec<&str>> = closed
            .units(&mut items)
            .map(|unit| unit.iter().map(|(item, _)| item.path.as_str()).collect())
            .collect();
        let alone = ["a", "f", "f/g", "a/b-", "a/h", "e-"].map(|path| vec![path]);
        let together = [vec!["a/b", "a/b/c", "a/b/d", "a/b/i"], vec!["e", "e/j"]];
        assert_eq!(units, [&alone[..], &together].concat());
    }
}
