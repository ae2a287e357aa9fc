//! Ids: random UUIDs, of which those made one after the other begin alike. So they stand together in an index
//! of ids, and a hundred new ones are written with a page or two of it instead of a hundred. What is left of
//! each are 98 bits that nobody can guess, who knows the others either.
use crate::base::lock::lock;
use crate::base::random;
use std::io;
use std::sync::Mutex;

/// How many begin alike.
const ALIKE: u32 = 128;
/// In how many bytes. There are 16 million beginnings, so that what stands together stays together.
const BEGINNING: usize = 3;

/// Makes ids.
#[derive(Debug, Default)]
pub(super) struct Ids(Mutex<Beginning>);

#[derive(Debug, Default)]
struct Beginning {
    bytes: [u8; BEGINNING],
    /// For so many more.
    left: u32,
}

impl Ids {
    /// A new one.
    ///
    /// # Errors
    /// When the kernel has no generator.
    pub(super) fn next(&self) -> io::Result<String> {
        let mut bytes = random::bytes()?;
        let mut beginning = lock(&self.0);
        match beginning.left.checked_sub(1) {
            Some(left) => {
                beginning.left = left;
                bytes[..BEGINNING].copy_from_slice(&beginning.bytes);
            }
            None => {
                beginning.left = ALIKE - 1;
                beginning.bytes.copy_from_slice(&bytes[..BEGINNING]);
            }
        }
        Ok(random::uuid_v4_of(bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn so_many_begin_alike_and_the_rest_differs() {
        let ids = Ids::default();
        let made: Vec<String> = (0..3 * ALIKE).map(|_| ids.next().unwrap()).collect();
        let distinct = |part: fn(&str) -> &str| made.iter().map(|id| part(id)).collect::<HashSet<_>>().len();
        assert_eq!(distinct(|id| &id[..2 * BEGINNING]), 3);
        assert_eq!(distinct(|id| &id[19..]), made.len());
        assert!(distinct(|id| &id[6..8]) > 100, "two more digits, of which there are 256");
    }
}
