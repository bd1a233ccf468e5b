//! Rebuilding a tar.

use std::io::{self, Read};

use sha2::Digest as _;

use super::{END, EXTENT, FRAME, LITERAL, MAGIC, PACKED, ZEROS};
use crate::digest::Digest;
use crate::io::ReadAt;

/// Reads as the tar that a recipe describes. The last read fails unless all of it had the recorded digest, so what
/// was read counts only once the end was reached. A damaged or forged recipe is an error; what is allocated is bounded.
#[derive(Debug)]
pub struct Rebuild<R, P> {
    recipe: R,
    partition: P,
    limit: u64,
    frame: Vec<u8>,
    at: usize,
    current: Run,
    len: u64,
    hash: sha2::Sha256,
    end: Option<Digest>,
}

/// What is being given out, with how much of it is left.
#[derive(Debug, Clone, Copy)]
enum Run {
    Literal(usize),
    Zeros(u64),
    Extent(u64, u64),
}

impl<R: Read, P: ReadAt> Rebuild<R, P> {
    /// Rebuilds from a recipe and the partition that was made along with it; `limit` is the most bytes that the tar
    /// may have.
    pub fn new(mut recipe: R, partition: P, limit: u64) -> io::Result<Self> {
        let mut magic = [0; MAGIC.len()];
        recipe.read_exact(&mut magic)?;
        if &magic != MAGIC {
            return Err(invalid("it does not start as a recipe does"));
        }
        Ok(Self {
            recipe,
            partition,
            limit,
            frame: Vec::new(),
            at: 0,
            current: Run::Zeros(0),
            len: 0,
            hash: sha2::Sha256::new(),
            end: None,
        })
    }

    /// The tar's digest, once all of it was read.
    pub fn diff_id(&self) -> Option<Digest> {
        self.end
    }

    fn left(&self) -> u64 {
        match self.current {
            Run::Literal(count) => count as u64,
            Run::Zeros(count) | Run::Extent(_, count) => count,
        }
    }

    fn next_operation(&mut self) -> io::Result<()> {
        if self.at == self.frame.len() {
            self.next_frame()?;
        }
        let kind = self.take::<1>()?[0];
        self.current = match kind {
            LITERAL => {
                let count = u32::from_le_bytes(self.take()?) as usize;
                if count > self.frame.len() - self.at {
                    return Err(invalid("an operation does not end in its frame"));
                }
                Run::Literal(count)
            }
            ZEROS => Run::Zeros(u64::from_le_bytes(self.take()?)),
            EXTENT => Run::Extent(
                u64::from_le_bytes(self.take()?),
                u64::from_le_bytes(self.take()?),
            ),
            END => {
                let (len, digest) = (
                    u64::from_le_bytes(self.take()?),
                    Digest::from_bytes(self.take()?),
                );
                let found = Digest::from_bytes(self.hash.clone().finalize().into());
                if len != self.len || digest != found {
                    return Err(invalid(&format!(
                        "it gave {} bytes with {found} in place of {len} with {digest}",
                        self.len
                    )));
                }
                if self.at != self.frame.len() || self.recipe.read(&mut [0])? != 0 {
                    return Err(invalid("something follows its end"));
                }
                self.end = Some(digest);
                Run::Zeros(0)
            }
            other => return Err(invalid(&format!("an operation {other} is not known"))),
        };
        if self
            .len
            .checked_add(self.left())
            .is_none_or(|len| len > self.limit)
        {
            return Err(invalid(&format!(
                "the tar would be larger than the {} bytes that are allowed",
                self.limit
            )));
        }
        Ok(())
    }

    fn next_frame(&mut self) -> io::Result<()> {
        let mut head = [0; 12];
        self.recipe.read_exact(&mut head)?;
        let number =
            |at: usize| u32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
        let (unpacked, packed) = (number(0) as usize, number(4) as usize);
        if unpacked == 0 || unpacked > FRAME || packed > PACKED {
            return Err(invalid(&format!(
                "a frame of {packed} bytes for {unpacked}; {FRAME} are the most"
            )));
        }
        let mut bytes = vec![0; packed];
        self.recipe.read_exact(&mut bytes)?;
        if crc32c::crc32c(&bytes) != number(8) {
            return Err(invalid("a frame's checksum is wrong"));
        }
        self.frame = zstd::bulk::decompress(&bytes, unpacked)?;
        self.at = 0;
        if self.frame.len() != unpacked {
            return Err(invalid("a frame is shorter than it says"));
        }
        Ok(())
    }

    fn take<const N: usize>(&mut self) -> io::Result<[u8; N]> {
        let field = self.frame[self.at..]
            .first_chunk::<N>()
            .ok_or_else(|| invalid("an operation does not end in its frame"))?;
        self.at += N;
        Ok(*field)
    }
}

impl<R: Read, P: ReadAt> Read for Rebuild<R, P> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if buf.is_empty() {
            return Ok(0);
        }
        while self.left() == 0 {
            if self.end.is_some() {
                return Ok(0);
            }
            self.next_operation()?;
        }
        let count = (buf.len() as u64).min(self.left()) as usize;
        let part = &mut buf[..count];
        self.current = match self.current {
            Run::Literal(left) => {
                part.copy_from_slice(&self.frame[self.at..self.at + count]);
                self.at += count;
                Run::Literal(left - count)
            }
            Run::Zeros(left) => {
                part.fill(0);
                Run::Zeros(left - count as u64)
            }
            Run::Extent(offset, left) => {
                self.partition.read_exact_at(offset, part)?;
                // Within the partition, so the sum does not overflow.
                Run::Extent(offset + count as u64, left - count as u64)
            }
        };
        self.hash.update(part);
        self.len += count as u64;
        Ok(count)
    }
}

fn invalid(reason: &str) -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidData,
        format!("the recipe of the layer's tar is damaged: {reason}"),
    )
}

#[cfg(test)]
mod tests {
    use super::super::RecipeWriter;
    use super::*;
    use proptest::prelude::*;

    fn recipe() -> (Vec<u8>, Vec<u8>, Vec<u8>) {
        let partition: Vec<u8> = (0..100_000u32).map(|at| at as u8).collect();
        let literal: Vec<u8> = (0..700_000u32)
            .map(|at| (at.wrapping_mul(2_654_435_761) >> 24) as u8)
            .collect();
        let tar = [
            &literal[..],
            &[0; 5000],
            &partition[10..90],
            &partition[90..50_000],
            b"end",
        ]
        .concat();
        let mut writer = RecipeWriter::new(Vec::new()).unwrap();
        writer.literal(&literal[..1]).unwrap();
        writer.literal(&literal[1..]).unwrap();
        writer.zeros(5000).unwrap();
        writer.extent(10, 80).unwrap();
        writer.extent(90, 49_910).unwrap();
        writer.literal(b"end").unwrap();
        (writer.finish(&Digest::of(&tar)).unwrap(), partition, tar)
    }

    fn rebuild(recipe: &[u8], partition: &[u8], limit: u64) -> io::Result<Vec<u8>> {
        let mut tar = Vec::new();
        Rebuild::new(recipe, partition, limit)?
            .read_to_end(&mut tar)
            .map(|_| tar)
    }

    #[test]
    fn a_recipe_gives_the_tar_back() {
        let (recipe, partition, tar) = recipe();
        assert!(rebuild(&recipe, &partition, tar.len() as u64).unwrap() == tar);
        assert!(rebuild(&recipe, &partition, tar.len() as u64 - 1).is_err());
    }

    #[test]
    fn other_data_in_the_partition_is_found_out() {
        let (recipe, mut partition, _) = recipe();
        partition[70] ^= 1;
        assert!(rebuild(&recipe, &partition, u64::MAX).is_err());
        assert!(rebuild(&recipe, &partition[..80], u64::MAX).is_err());
    }

    #[test]
    fn a_truncated_or_longer_recipe_is_refused() {
        let (recipe, partition, _) = recipe();
        for end in [0, 7, 8, 15, 20, recipe.len() / 2, recipe.len() - 1] {
            assert!(
                rebuild(&recipe[..end], &partition, u64::MAX).is_err(),
                "{end}"
            );
        }
        assert!(rebuild(&[&recipe[..], b"x"].concat(), &partition, u64::MAX).is_err());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn a_changed_byte_is_found_out(at in any::<prop::sample::Index>(), flip in 1u8..) {
            let (mut recipe, partition, _) = recipe();
            let at = at.index(recipe.len());
            recipe[at] ^= flip;
            prop_assert!(rebuild(&recipe, &partition, 1 << 20).is_err());
        }

        #[test]
        fn forged_frames_never_panic(operations in prop::collection::vec(any::<u8>(), 1..200), kind in 0u8..5) {
            let operations = [&[kind][..], &operations].concat();
            let packed = zstd::bulk::compress(&operations, 1).unwrap();
            let mut recipe = MAGIC.to_vec();
            for number in [operations.len() as u32, packed.len() as u32, crc32c::crc32c(&packed)] {
                recipe.extend(number.to_le_bytes());
            }
            recipe.extend(packed);
            prop_assert!(rebuild(&recipe, &[7; 1000], 1 << 20).is_err());
        }
    }
}
