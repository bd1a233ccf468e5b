//! The 512 bytes before each entry.

use crate::ext4::Time;

pub(super) const BLOCK: usize = 512;

/// Which dialect a header is of: they differ in what follows the magic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    V7,
    Ustar,
    Star,
    Gnu,
}

/// A header block whose checksum is right.
pub(super) struct Header<'a>(pub &'a [u8; BLOCK]);

impl Header<'_> {
    /// Whether the checksum is right: the sum of all bytes, its own field taken as blanks. Some old programs summed
    /// signed bytes.
    pub(super) fn checksum_is_right(&self) -> bool {
        let Ok(Some(stated)) = number(&self.0[148..156]) else {
            return false;
        };
        let other = || self.0[..148].iter().chain(&[b' '; 8]).chain(&self.0[156..]);
        let unsigned: i64 = other().map(|byte| i64::from(*byte)).sum();
        let signed: i64 = other().map(|byte| i64::from(*byte as i8)).sum();
        stated == unsigned || stated == signed
    }

    pub(super) fn format(&self) -> Format {
        match (&self.0[257..265], &self.0[508..512]) {
            (b"ustar  \0", _) => Format::Gnu,
            ([b'u', b's', b't', b'a', b'r', 0, ..], b"tar\0") => Format::Star,
            ([b'u', b's', b't', b'a', b'r', 0, ..], _) => Format::Ustar,
            _ => Format::V7,
        }
    }

    pub(super) fn kind(&self) -> u8 {
        self.0[156]
    }

    /// The name, with the prefix where the format has one.
    pub(super) fn path(&self) -> Vec<u8> {
        let name = text(&self.0[..100]);
        let prefix = match self.format() {
            Format::Ustar => text(&self.0[345..500]),
            Format::Star => text(&self.0[345..476]),
            Format::V7 | Format::Gnu => &[],
        };
        if prefix.is_empty() {
            name.to_vec()
        } else {
            [prefix, b"/", name].concat()
        }
    }

    pub(super) fn link(&self) -> &[u8] {
        text(&self.0[157..257])
    }

    pub(super) fn mode(&self) -> Result<i64, String> {
        self.field(100..108, "mode")
    }

    pub(super) fn uid(&self) -> Result<i64, String> {
        self.field(108..116, "uid")
    }

    pub(super) fn gid(&self) -> Result<i64, String> {
        self.field(116..124, "gid")
    }

    pub(super) fn size(&self) -> Result<i64, String> {
        self.field(124..136, "size")
    }

    pub(super) fn mtime(&self) -> Result<Time, String> {
        Ok(Time {
            secs: self.field(136..148, "mtime")?,
            nanos: 0,
        })
    }

    pub(super) fn device(&self) -> Result<(i64, i64), String> {
        if self.format() == Format::V7 {
            return Ok((0, 0));
        }
        Ok((
            self.field(329..337, "device major")?,
            self.field(337..345, "device minor")?,
        ))
    }

    /// A number; 0 where the field is blank.
    pub(super) fn field(&self, range: std::ops::Range<usize>, what: &str) -> Result<i64, String> {
        let bytes = &self.0[range];
        number(bytes).map(|value| value.unwrap_or(0)).map_err(|()| {
            format!(
                "its {what} {:?} is no number",
                String::from_utf8_lossy(bytes)
            )
        })
    }
}

/// The bytes before the first NUL.
pub(super) fn text(bytes: &[u8]) -> &[u8] {
    bytes.split(|byte| *byte == 0).next().unwrap_or(&[])
}

/// A numeric field: octal digits between blanks and NULs, or, with the top bit set, a big-endian two's complement
/// number (GNU's base-256). `None` where it is blank.
pub(super) fn number(bytes: &[u8]) -> Result<Option<i64>, ()> {
    match bytes.first() {
        Some(first) if first & 0x80 != 0 => {
            let negative = first & 0x40 != 0;
            let mut value: i128 = if negative { -1 } else { 0 };
            for (at, byte) in bytes.iter().enumerate() {
                // The first byte's top bit is the mark; the next one is the sign.
                let byte = match (at, negative) {
                    (0, false) => byte & 0x7F,
                    _ => *byte,
                };
                value = value << 8 | i128::from(byte);
            }
            i64::try_from(value).map(Some).map_err(|_| ())
        }
        _ => {
            let is_blank = |byte: &u8| matches!(byte, b' ' | 0);
            let start = bytes
                .iter()
                .position(|byte| !is_blank(byte))
                .unwrap_or(bytes.len());
            let digits = bytes[start..].split(is_blank).next().unwrap_or(&[]);
            if digits.is_empty() {
                return Ok(None);
            }
            digits
                .iter()
                .try_fold(0i64, |value, byte| match byte {
                    b'0'..=b'7' => value
                        .checked_mul(8)
                        .and_then(|value| value.checked_add(i64::from(byte - b'0')))
                        .ok_or(()),
                    _ => Err(()),
                })
                .map(Some)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_all_dialects_are_read() {
        assert_eq!(number(b"0000644\0"), Ok(Some(0o644)));
        assert_eq!(number(b"  644 \0\0"), Ok(Some(0o644)));
        assert_eq!(number(b"77777777777"), Ok(Some(0o77_777_777_777)));
        assert_eq!(number(b"\0\0\0\0"), Ok(None));
        assert_eq!(number(b"12x\0"), Err(()));
        assert_eq!(number(b"-1\0"), Err(()));
        assert_eq!(
            number(&[0x80, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0]),
            Ok(Some(1 << 32))
        );
        assert_eq!(number(&[0xFF; 12]), Ok(Some(-1)));
        assert_eq!(
            number(&[
                0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFE
            ]),
            Ok(Some(-2))
        );
        assert_eq!(
            number(&[
                0x80, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF
            ]),
            Err(())
        );
    }
}
