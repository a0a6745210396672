//! A QR code as text, SVG and PNG.

use qrcodegen::QrCode;

/// The quiet zone that the standard wants (ISO/IEC 18004), in modules.
const QUIET: i32 = 4;
/// Pixels of a module.
const SCALE: i32 = 8;
/// What a stored deflate block holds at most (RFC 1951, 3.2.4).
const BLOCK: usize = 65_535;

fn dark(code: &QrCode, x: i32, y: i32) -> bool {
    code.get_module(x - QUIET, y - QUIET)
}

fn side(code: &QrCode) -> i32 {
    code.size() + 2 * QUIET
}

/// How many columns [`blocks`] takes.
pub fn width(code: &QrCode) -> u16 {
    u16::try_from(side(code)).unwrap_or(u16::MAX)
}

/// Half blocks, two modules in a character. Light modules are drawn, so it is right on a dark terminal; most scanners
/// read it on a light one as well.
pub fn blocks(code: &QrCode) -> String {
    let mut text = String::new();
    for y in (0..side(code)).step_by(2) {
        for x in 0..side(code) {
            let (upper, lower) = (!dark(code, x, y), y + 1 < side(code) && !dark(code, x, y + 1));
            text.push(match (upper, lower) {
                (true, true) => '█',
                (true, false) => '▀',
                (false, true) => '▄',
                (false, false) => ' ',
            });
        }
        text.push('\n');
    }
    text
}

/// One path of unit squares on a white ground.
pub fn svg(code: &QrCode) -> String {
    let side = side(code);
    let mut path = String::new();
    for y in 0..side {
        for x in (0..side).filter(|&x| dark(code, x, y)) {
            path.push_str(&format!("M{x},{y}h1v1h-1z"));
        }
    }
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{pixels}\" height=\"{pixels}\" viewBox=\"0 0 {side} {side}\" \
         shape-rendering=\"crispEdges\"><rect width=\"{side}\" height=\"{side}\" fill=\"#fff\"/>\
         <path d=\"{path}\" fill=\"#000\"/></svg>\n",
        pixels = side * SCALE
    )
}

/// One bit a pixel, not compressed: a small file all the same, and no compressor is needed.
pub fn png(code: &QrCode) -> Vec<u8> {
    let pixels = side(code) * SCALE;
    let mut rows = Vec::new();
    for y in 0..pixels {
        // No filter.
        rows.push(0);
        for x in (0..pixels).step_by(8) {
            // A module is as wide as a byte; 1 is white.
            rows.push(if dark(code, x / SCALE, y / SCALE) { 0x00 } else { 0xff });
        }
    }
    let size = u32::try_from(pixels).unwrap_or_default().to_be_bytes();
    let mut header = [size, size].concat();
    // Bit depth 1, greyscale, and the only methods there are.
    header.extend([1, 0, 0, 0, 0]);
    let mut file = b"\x89PNG\r\n\x1a\n".to_vec();
    chunk(&mut file, b"IHDR", &header);
    chunk(&mut file, b"IDAT", &stored(&rows));
    chunk(&mut file, b"IEND", &[]);
    file
}

fn chunk(file: &mut Vec<u8>, kind: &[u8; 4], content: &[u8]) {
    file.extend(u32::try_from(content.len()).unwrap_or_default().to_be_bytes());
    let checked = [kind, content].concat();
    file.extend(&checked);
    file.extend(crc32(&checked).to_be_bytes());
}

/// A zlib stream (RFC 1950) of stored blocks.
fn stored(bytes: &[u8]) -> Vec<u8> {
    let mut out = vec![0x78, 0x01];
    let mut blocks = bytes.chunks(BLOCK).peekable();
    while let Some(block) = blocks.next() {
        let length = u16::try_from(block.len()).unwrap_or_default();
        out.push(u8::from(blocks.peek().is_none()));
        out.extend(length.to_le_bytes());
        out.extend((!length).to_le_bytes());
        out.extend(block);
    }
    out.extend(adler32(bytes).to_be_bytes());
    out
}

fn adler32(bytes: &[u8]) -> u32 {
    let (a, b) = bytes.iter().fold((1_u32, 0_u32), |(a, b), byte| {
        let a = (a + u32::from(*byte)) % 65_521;
        (a, (b + a) % 65_521)
    });
    b << 16 | a
}

/// The CRC of PNG (ISO 3309).
fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| (crc >> 1) ^ (0xedb8_8320 & 0_u32.wrapping_sub(crc & 1)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn check_sums_are_those_of_the_standards() {
        assert_eq!(crc32(b"123456789"), 0xcbf4_3926);
        assert_eq!(adler32(b"Wikipedia"), 0x11e6_0398);
        assert_eq!(stored(b""), [0x78, 0x01, 0, 0, 0, 1], "never asked for: a picture has rows");
        let long = stored(&vec![7; BLOCK + 1]);
        assert_eq!((long[2], long[7 + BLOCK]), (0, 1), "only the last block says so");
    }

    #[test]
    fn all_pictures_have_the_size_of_the_code_and_its_margin() {
        let code = QrCode::encode_text("x", qrcodegen::QrCodeEcc::Medium).unwrap();
        assert_eq!(side(&code), 29);
        let text = blocks(&code);
        assert_eq!((text.lines().count(), text.lines().next().unwrap().chars().count()), (15, 29));
        let png = png(&code);
        assert_eq!(png[16..24], [0, 0, 0, 232, 0, 0, 0, 232]);
        assert!(svg(&code).contains("viewBox=\"0 0 29 29\""));
    }
}
