//! Bytes that are much like these: what a fuzzer does, small, deterministic, and without feedback.

/// Words that lead deep into the code, where noise would stop at the first byte.
const WORDS: &[&[u8]] = &[
    b"\r\n",
    b"\r\n\r\n",
    b"\n",
    b"\r",
    b"\0",
    b" ",
    b"\t",
    b":",
    b": ",
    b",",
    b";",
    b"\"",
    b"\\",
    b"/",
    b"?",
    b"#",
    b"%2f",
    b"%",
    b"..",
    b"@",
    b"[::1]",
    b"*",
    b"0",
    b"5",
    b"0x5",
    b"+5",
    b"ffffffffffffffff",
    b"0\r\n\r\n",
    b"5\r\nhello\r\n",
    b"hello",
    b"HTTP/1.1",
    b"HTTP/1.0",
    b"GET ",
    b"HEAD ",
    b"POST ",
    b"OPTIONS ",
    b"CONNECT ",
    b"http://h/",
    b"Host: h\r\n",
    b"Content-Length: 5\r\n",
    b"Content-Length: 0\r\n",
    b"Content-Length:",
    b"Transfer-Encoding: chunked\r\n",
    b"Transfer-Encoding:",
    b"chunked",
    b"identity",
    b"Connection: close\r\n",
    b"Connection: ",
    b"keep-alive",
    b"Connection: Upgrade\r\nUpgrade: websocket\r\n",
    b"TE: trailers\r\n",
    b"Trailer: X-T\r\n",
    b"X-T: 1\r\n",
    b"Expect: 100-continue\r\n",
    b"Max-Forwards: 0\r\n",
    b"Via: 1.0 x\r\n",
    b"X-Forwarded-For: 1.2.3.4\r\n",
    b"Date: d\r\n",
    b"Location: http://127.0.0.1:3000/x\r\n",
    b"HTTP/1.1 200 OK\r\n",
    b"HTTP/1.1 100 Continue\r\n\r\n",
    b"HTTP/1.1 103 Early Hints\r\n\r\n",
    b"HTTP/1.1 204 No Content\r\n",
    b"HTTP/1.1 304 Not Modified\r\n",
    b"HTTP/1.1 101 Switching Protocols\r\n",
    b"GET / HTTP/1.1\r\nHost: h\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
    b"\x1fC",
    b"\x1fB",
    b"\x1fb",
    b"\x1fc",
    b"\x1fe",
    b"\x1fl",
    b"\x1f1",
    b"\x1f2",
    b"<Location /a>\n",
    b"</Location>\n",
    b"<VirtualHost *:80>\n",
    b"</VirtualHost>\n",
    b"<IfModule mpm_event_module>\n",
    b"</IfModule>\n",
    b"ProxyPass ",
    b"ProxyPassReverse ",
    b"Listen ",
    b"Define a ",
    b"${a}",
    b"!",
    b"On",
    b"Off",
    b"99999999999999999999",
    b"-1",
    b"\\\n",
    b"# ",
    b"http://127.0.0.1:3000/",
    b"unix:/s|http://h/",
    b"timeout=5",
    b"\xc3\xa9",
    b"\xff",
];

/// A small generator of numbers (splitmix64): the same seed, the same numbers, everywhere.
#[derive(Clone, Debug)]
pub struct Chance(u64);

impl Chance {
    /// Begins with a number.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Begins with what bytes say (FNV-1a).
    pub fn of(bytes: &[u8]) -> Self {
        let hash = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        Self(bytes.iter().fold(0xcbf2_9ce4_8422_2325, hash))
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `limit`, which is not 0.
    pub fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit as u64) as usize
    }

    /// A place between the bytes of `bytes`, or at an end.
    fn place(&mut self, bytes: &[u8]) -> usize {
        self.below(bytes.len() + 1)
    }

    /// A range of up to `most` bytes of `bytes`.
    fn range(&mut self, bytes: &[u8], most: usize) -> std::ops::Range<usize> {
        let start = self.place(bytes);
        start..(start + self.below(most + 1)).min(bytes.len())
    }
}

/// One to five changes to `seed`: words put in or over, bytes flipped, pieces dropped, doubled, or taken from
/// `other`. At most 16 KiB long.
pub fn mutated(seed: &[u8], other: &[u8], chance: &mut Chance) -> Vec<u8> {
    let mut bytes = seed.to_vec();
    for _ in 0..=chance.below(5) {
        let at = chance.place(&bytes);
        match chance.below(9) {
            0..3 => {
                let word = WORDS[chance.below(WORDS.len())];
                bytes.splice(at..at, word.iter().copied());
            }
            3 => {
                let word = WORDS[chance.below(WORDS.len())];
                let end = (at + word.len()).min(bytes.len());
                bytes.splice(at..end, word.iter().copied());
            }
            4 => {
                if let Some(byte) = bytes.get_mut(at) {
                    *byte = match chance.below(3) {
                        0 => *byte ^ 1 << chance.below(8),
                        1 => byte.wrapping_add(1),
                        _ => chance.below(256) as u8,
                    };
                }
            }
            5 => {
                let range = chance.range(&bytes, 40);
                bytes.drain(range);
            }
            6 => {
                let range = chance.range(&bytes, 200);
                let piece = bytes[range].to_vec();
                bytes.splice(at..at, piece);
            }
            7 => {
                let range = chance.range(other, 200);
                bytes.splice(at..at, other[range].iter().copied());
            }
            _ => {
                let fill = vec![b'a'; [1, 16, 100, 8200][chance.below(4)]];
                bytes.splice(at..at, fill);
            }
        }
        bytes.truncate(16 * 1024);
    }
    bytes
}
