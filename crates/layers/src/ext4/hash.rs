//! The half-MD4 hash of directory entries (fs/ext4/hash.c; RFC 1320's functions), for unsigned characters.

fn f(x: u32, y: u32, z: u32) -> u32 {
    z ^ (x & (y ^ z))
}
fn g(x: u32, y: u32, z: u32) -> u32 {
    (x & y).wrapping_add((x ^ y) & z)
}
fn h(x: u32, y: u32, z: u32) -> u32 {
    x ^ y ^ z
}

fn transform(state: &mut [u32; 4], input: &[u32; 8]) {
    const K2: u32 = 0o13_240_474_631;
    const K3: u32 = 0o15_666_365_641;
    let [mut a, mut b, mut c, mut d] = *state;
    let mut round = |f: fn(u32, u32, u32) -> u32, order: [usize; 8], add: u32, shifts: [u32; 4]| {
        for (i, word) in order.into_iter().enumerate() {
            let (x, y, z, w) = (a, b, c, d);
            let sum = x
                .wrapping_add(f(y, z, w))
                .wrapping_add(input[word])
                .wrapping_add(add);
            // The four words take turns: what was d becomes a for the next step.
            (a, b, c, d) = (w, sum.rotate_left(shifts[i % 4]), y, z);
        }
    };
    round(f, [0, 1, 2, 3, 4, 5, 6, 7], 0, [3, 7, 11, 19]);
    round(g, [1, 3, 5, 7, 0, 2, 4, 6], K2, [3, 5, 9, 13]);
    round(h, [3, 7, 2, 6, 1, 5, 0, 4], K3, [3, 9, 11, 15]);
    for (s, v) in state.iter_mut().zip([a, b, c, d]) {
        *s = s.wrapping_add(v);
    }
}

/// Up to 32 bytes as eight words, padded with the length (`str2hashbuf_unsigned`).
fn words(name: &[u8]) -> [u32; 8] {
    let length = name.len() as u32;
    let mut pad = length | (length << 8);
    pad |= pad << 16;
    let mut out = [pad; 8];
    for (word, chunk) in out.iter_mut().zip(name[..name.len().min(32)].chunks(4)) {
        let mut value = pad;
        for byte in chunk {
            value = (value << 8).wrapping_add(u32::from(*byte));
        }
        *word = value;
    }
    out
}

/// Major hash of a name, its lowest bit clear (that bit marks collisions over blocks).
pub(super) fn half_md4(name: &[u8], seed: &[u32; 4]) -> u32 {
    let mut state = if seed.iter().all(|s| *s == 0) {
        [0x6745_2301, 0xefcd_ab89, 0x98ba_dcfe, 0x1032_5476]
    } else {
        *seed
    };
    let mut rest = name;
    while !rest.is_empty() {
        transform(&mut state, &words(rest));
        rest = &rest[rest.len().min(32)..];
    }
    let hash = state[1] & !1;
    // The kernel keeps the last two values for itself (EXT4_HTREE_EOF_32BIT).
    if hash == 0xffff_fffe {
        0xffff_fffc
    } else {
        hash
    }
}
