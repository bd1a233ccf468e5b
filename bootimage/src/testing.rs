//! Small inputs that tests of this crate are made of. Not part of the API.
#![doc(hidden)]

/// The smallest ELF64 relocatable with one section `.modinfo` of these bytes.
pub fn elf_module(modinfo: &[u8]) -> Vec<u8> {
    const HEADER: usize = 64;
    let names = b"\0.modinfo\0.shstrtab\0";
    let table = HEADER + modinfo.len() + names.len();
    let mut elf = vec![0x7f, b'E', b'L', b'F', 2, 1, 1];
    elf.resize(16, 0);
    elf.extend(1_u16.to_le_bytes()); // relocatable
    elf.extend(62_u16.to_le_bytes()); // x86-64
    elf.extend(1_u32.to_le_bytes());
    elf.extend([0; 16]); // entry, program headers
    elf.extend((table as u64).to_le_bytes());
    elf.extend([0; 4]);
    elf.extend(64_u16.to_le_bytes());
    elf.extend([0; 4]);
    elf.extend(64_u16.to_le_bytes());
    elf.extend(3_u16.to_le_bytes());
    elf.extend(2_u16.to_le_bytes());
    elf.extend(modinfo);
    elf.extend(names);
    let mut section = |name: u32, kind: u32, offset: usize, len: usize| {
        elf.extend(name.to_le_bytes());
        elf.extend(kind.to_le_bytes());
        elf.extend([0; 16]);
        elf.extend((offset as u64).to_le_bytes());
        elf.extend((len as u64).to_le_bytes());
        elf.extend([0; 24]);
    };
    section(0, 0, 0, 0);
    section(1, 1, HEADER, modinfo.len());
    section(10, 3, HEADER + modinfo.len(), names.len());
    elf
}
