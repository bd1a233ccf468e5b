//! XDR (RFC 4506), as far as NFS's folders need it. Reading takes no more than there is.

/// Bytes that are being written.
#[derive(Debug, Clone, Default)]
pub struct Out(pub Vec<u8>);

impl Out {
    /// A number.
    #[must_use]
    pub fn u32(mut self, value: u32) -> Self {
        self.0.extend(value.to_be_bytes());
        self
    }

    /// A long number.
    #[must_use]
    pub fn u64(mut self, value: u64) -> Self {
        self.0.extend(value.to_be_bytes());
        self
    }

    /// Numbers.
    #[must_use]
    pub fn all(self, values: &[u32]) -> Self {
        values.iter().fold(self, |out, value| out.u32(*value))
    }

    /// Bytes as they are, a multiple of four.
    #[must_use]
    pub fn raw(mut self, bytes: &[u8]) -> Self {
        self.0.extend(bytes);
        self
    }

    /// Bytes with their length in front, filled up to a multiple of four. What is given here is short.
    #[must_use]
    pub fn opaque(self, bytes: &[u8]) -> Self {
        let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        let mut out = self.u32(length).raw(bytes);
        out.0.resize(out.0.len().next_multiple_of(4), 0);
        out
    }
}

/// It is not what the protocol says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Garbled;

/// What is still to be read.
#[derive(Debug, Clone, Copy)]
pub struct In<'a>(pub &'a [u8]);

impl<'a> In<'a> {
    /// So many bytes as they are.
    ///
    /// # Errors
    /// There are fewer.
    pub fn raw(&mut self, count: usize) -> Result<&'a [u8], Garbled> {
        let (bytes, rest) = self.0.split_at_checked(count).ok_or(Garbled)?;
        self.0 = rest;
        Ok(bytes)
    }

    /// A number.
    ///
    /// # Errors
    /// There is none.
    pub fn u32(&mut self) -> Result<u32, Garbled> {
        let bytes = self.raw(4)?.try_into().map_err(|_| Garbled)?;
        Ok(u32::from_be_bytes(bytes))
    }

    /// A long number.
    ///
    /// # Errors
    /// There is none.
    pub fn u64(&mut self) -> Result<u64, Garbled> {
        let bytes = self.raw(8)?.try_into().map_err(|_| Garbled)?;
        Ok(u64::from_be_bytes(bytes))
    }

    /// Yes or no.
    ///
    /// # Errors
    /// It is neither.
    pub fn flag(&mut self) -> Result<bool, Garbled> {
        match self.u32()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(Garbled),
        }
    }

    /// Bytes with their length in front.
    ///
    /// # Errors
    /// They are more than `most`, or not all there.
    pub fn opaque(&mut self, most: usize) -> Result<&'a [u8], Garbled> {
        let length = self.u32()? as usize;
        if length > most {
            return Err(Garbled);
        }
        let bytes = self.raw(length)?;
        self.raw(length.next_multiple_of(4) - length)?;
        Ok(bytes)
    }

    /// Numbers with their count in front.
    ///
    /// # Errors
    /// They are more than `most`, or not all there.
    pub fn numbers(&mut self, most: usize) -> Result<Vec<u32>, Garbled> {
        let count = self.u32()? as usize;
        if count > most {
            return Err(Garbled);
        }
        (0..count).map(|_| self.u32()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_reads_back_and_nothing_reads_past_the_end() {
        let bytes = Out::default().u32(7).opaque(b"abcde").u64(9).all(&[1, 5]).0;
        assert_eq!(bytes.len(), 4 + 4 + 8 + 8 + 8);
        let mut from = In(&bytes);
        assert_eq!(from.u32(), Ok(7));
        assert_eq!(from.opaque(5), Ok(&b"abcde"[..]));
        assert_eq!(from.u64(), Ok(9));
        assert_eq!(from.numbers(1), Ok(vec![5]));
        assert_eq!(from.u32(), Err(Garbled));
        assert_eq!(In(&bytes[4..]).opaque(4), Err(Garbled), "more than wanted");
        let lies = u32::MAX.to_be_bytes();
        assert_eq!(In(&lies).opaque(usize::MAX), Err(Garbled));
        assert_eq!(In(&lies).numbers(8), Err(Garbled));
        assert_eq!(In(&lies).flag(), Err(Garbled));
    }
}
