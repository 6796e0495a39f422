//! Which bytes does which side send, in which order?
//!
//! A script is plain bytes in which 0x1F and a letter begin something new, so that seeds can be read, and a fuzzer
//! can put events anywhere:
//!
//! | mark | what happens |
//! |---|---|
//! | `C` | the client sends what follows (as at the beginning) |
//! | `B` | the backend does |
//! | `c`, `b` | the client or the backend ends its side |
//! | `e` | the second is over for which a backend may be silent on Expect |
//! | `l` | the child begins to leave |
//! | `0` to `9` | the number of the world, where the last one counts |
//!
//! 0x1F with anything else behind it stands for both bytes.

/// The mark before each letter.
const MARK: u8 = 0x1f;

/// What happens next.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Event {
    /// The client sends this; never empty.
    Client(Vec<u8>),
    /// The backend sends this; never empty.
    Backend(Vec<u8>),
    ClientCloses,
    BackendCloses,
    ExpectExpires,
    ChildLeaves,
}

/// What happens, and in which world.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Script {
    pub world: usize,
    pub events: Vec<Event>,
}

impl Script {
    /// Reads any bytes as a script. What one side sends in a row is one event.
    pub fn read(bytes: &[u8]) -> Self {
        let mut script = Self::default();
        let mut is_backend = false;
        let mut at = 0;
        while at < bytes.len() {
            match (bytes[at], bytes.get(at + 1)) {
                (MARK, Some(letter @ (b'C' | b'B'))) => is_backend = *letter == b'B',
                (MARK, Some(b'c')) => script.events.push(Event::ClientCloses),
                (MARK, Some(b'b')) => script.events.push(Event::BackendCloses),
                (MARK, Some(b'e')) => script.events.push(Event::ExpectExpires),
                (MARK, Some(b'l')) => script.events.push(Event::ChildLeaves),
                (MARK, Some(digit @ b'0'..=b'9')) => script.world = usize::from(digit - b'0'),
                (byte, _) => {
                    script.say(is_backend, byte);
                    at += 1;
                    continue;
                }
            }
            at += 2;
        }
        script
    }

    fn say(&mut self, is_backend: bool, byte: u8) {
        match (self.events.last_mut(), is_backend) {
            (Some(Event::Client(run)), false) | (Some(Event::Backend(run)), true) => run.push(byte),
            (_, false) => self.events.push(Event::Client(vec![byte])),
            (_, true) => self.events.push(Event::Backend(vec![byte])),
        }
    }
}
