//! The language between an old master and the one that follows it: the variable that tells the new one what it has
//! been given, and the words that they exchange until the old one has nothing more to do but to drain.
//!
//! Words travel over a SOCK_SEQPACKET pair, one to a packet, as text. In their order: `hello`, when the new program has
//! recognised itself; `ready`, when its children serve; `go`, when the old one has unlocked the PidFile; `taken`, when
//! the new one has locked it; `farewell`, when the old one has told its children to drain. At each step before `taken`
//! the end of either side leaves the other as if nothing had been asked; an old one that goes on by itself says `off`,
//! since a new one that only sees it gone takes its place.

use crate::clock::Moment;
use crate::config::model::Listen;
use crate::ids::Generation;
use crate::mpm::passage;
use std::fmt;
use std::net::SocketAddr;
use std::os::fd::RawFd;

/// The variable. Only an old master sets it, only its new one reads it, and takes it out of its environment.
pub const VARIABLE: &str = "OSTLER_UPGRADE";

/// The version of this language. A program that speaks another is no successor.
const VERSION: &str = "1";

/// Longest text of a word in bytes.
pub const LONGEST: usize = 8 * 1024;

/// What an old master leaves to the new one, by the numbers of descriptors.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Bequest {
    /// The old master's number.
    pub master: i32,
    /// The generation that the new one begins with.
    pub generation: Generation,
    /// When the upgrade was asked for.
    pub begun: Moment,
    /// The same in microseconds since 1970.
    pub begun_wall: u64,
    /// Where the words go.
    pub words: RawFd,
    /// The standard error stream that the new one shall have; the one it is started with is heard by the old master.
    pub standard_error: RawFd,
    /// The listening sockets.
    pub listeners: Vec<Willed>,
    /// Others, by name. One whose name the new master does not know is closed.
    pub others: Vec<(String, RawFd)>,
}

/// A listening socket that is left to the new master.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Willed {
    /// The descriptor.
    pub fd: RawFd,
    /// The line that it was bound for: with port 0 where the kernel has chosen one.
    pub listen: Listen,
    /// An IPv6 wildcard that takes IPv4 clients too.
    pub any_family: bool,
    /// It was passed by the service manager in the beginning.
    pub managers: bool,
}

impl fmt::Display for Bequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { master, generation, begun, begun_wall, words, standard_error, .. } = self;
        write!(f, "{VERSION} master={master} generation={generation} begun={},{begun_wall}", begun.0)?;
        write!(f, " words={words} stderr={standard_error}")?;
        for Willed { fd, listen, any_family, managers } in &self.listeners {
            write!(f, " listen={fd},{}", listen.address)?;
            for (is_so, word) in [(listen.any_family, LINE), (*any_family, BOTH), (*managers, MANAGERS)] {
                if is_so {
                    write!(f, ",{word}")?;
                }
            }
        }
        self.others.iter().try_for_each(|(name, fd)| write!(f, " fd={fd},{name}"))
    }
}

/// The line named no address.
const LINE: &str = "any";
/// The socket takes clients of both families.
const BOTH: &str = "both";
/// The service manager's.
const MANAGERS: &str = "managers";

impl Bequest {
    /// What the variable says; `None` if it makes no sense.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let mut fields = text.split(' ').peekable();
        if fields.next()? != VERSION {
            return None;
        }
        let mut one = |name: &str| {
            let (key, value) = fields.next_if(|field| field.starts_with(name))?.split_once('=')?;
            (key == name).then_some(value)
        };
        let master = one("master")?.parse().ok().filter(|pid| *pid > 0)?;
        let generation = Generation(one("generation")?.parse().ok()?);
        let (begun, begun_wall) = one("begun")?.split_once(',')?;
        let (words, standard_error) = (descriptor(one("words")?)?, descriptor(one("stderr")?)?);
        let mut bequest = Self {
            master,
            generation,
            begun: Moment(begun.parse().ok()?),
            begun_wall: begun_wall.parse().ok()?,
            words,
            standard_error,
            listeners: Vec::new(),
            others: Vec::new(),
        };
        for field in fields {
            let (key, value) = field.split_once('=')?;
            let (fd, rest) = value.split_once(',')?;
            let fd = descriptor(fd)?;
            match key {
                "listen" => bequest.listeners.push(willed(fd, rest)?),
                "fd" => bequest.others.push((rest.to_owned(), fd)),
                _ => return None,
            }
        }
        let mut all: Vec<RawFd> = bequest.descriptors().collect();
        all.sort_unstable();
        // Each is taken once.
        all.windows(2).all(|pair| pair[0] != pair[1]).then_some(bequest)
    }

    /// Every descriptor of it.
    pub fn descriptors(&self) -> impl Iterator<Item = RawFd> {
        let listeners = self.listeners.iter().map(|listener| listener.fd);
        let others = self.others.iter().map(|(_, fd)| *fd);
        [self.words, self.standard_error].into_iter().chain(listeners).chain(others)
    }
}

fn descriptor(text: &str) -> Option<RawFd> {
    text.parse().ok().filter(|fd| *fd > 2)
}

fn willed(fd: RawFd, text: &str) -> Option<Willed> {
    let mut parts = text.split(',').peekable();
    let address: SocketAddr = parts.next()?.parse().ok()?;
    let mut is_so = |word: &str| parts.next_if_eq(&word).is_some();
    let listen = Listen { address, any_family: is_so(LINE) };
    let willed = Willed { fd, listen, any_family: is_so(BOTH), managers: is_so(MANAGERS) };
    parts.next().is_none().then_some(willed)
}

/// What the new master says.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Word {
    /// It is an ostler, and understands this language.
    Hello,
    /// Its children serve.
    Ready {
        /// Of the listeners, by their places, it uses these.
        places: Vec<usize>,
        /// They take over idle connections of the old master's children.
        takes_over: bool,
    },
    /// It is the master now.
    Taken,
    /// It will not be: one reason of perhaps several.
    Fault(String),
}

const READY: &str = "ready";
const TAKES_OVER: &str = "ready-to-take-over";

/// The ends of the pair over which children hand connections over, the receiving one first.
pub const HAND_OVER: [HandOverEnd; 2] = [HandOverEnd::Receive, HandOverEnd::Send];

/// One of them.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum HandOverEnd {
    /// Where children receive.
    Receive,
    /// Where they send.
    Send,
}

impl HandOverEnd {
    /// The name by which it is left. It holds the version of what travels there: a new master whose children would not
    /// understand it does not know the name, and makes a pair of its own.
    #[must_use]
    pub fn name(self) -> String {
        let end = match self {
            Self::Receive => "receive",
            Self::Send => "send",
        };
        format!("hand-over-{}-{end}", passage::VERSION)
    }
}

/// What the old master says.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Answer {
    /// The PidFile is free.
    Go,
    /// The old master goes on; there is to be no new one.
    Off,
    /// The old master drains. What it has been asked for meanwhile is the new one's to do.
    Farewell {
        /// To reload.
        reload: bool,
        /// To upgrade once more.
        upgrade: bool,
    },
}

impl Word {
    /// The packet.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let text = match self {
            Self::Hello => "hello".to_owned(),
            Self::Ready { places, takes_over } => {
                let word = if *takes_over { TAKES_OVER } else { READY };
                places.iter().fold(word.to_owned(), |text, place| format!("{text} {place}"))
            }
            Self::Taken => "taken".to_owned(),
            Self::Fault(reason) => format!("fault {reason}"),
        };
        let mut end = text.len().min(LONGEST);
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        text.as_bytes()[..end].to_vec()
    }

    /// What a packet says; `None` if it makes no sense.
    #[must_use]
    pub fn decode(packet: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(packet).ok()?;
        let (word, rest) = text.split_once(' ').unwrap_or((text, ""));
        Some(match word {
            "hello" if rest.is_empty() => Self::Hello,
            READY | TAKES_OVER => {
                let places =
                    rest.split(' ').filter(|place| !place.is_empty()).map(|place| place.parse().ok());
                Self::Ready { places: places.collect::<Option<_>>()?, takes_over: word == TAKES_OVER }
            }
            "taken" if rest.is_empty() => Self::Taken,
            "fault" => Self::Fault(rest.to_owned()),
            _ => return None,
        })
    }
}

impl Answer {
    /// The packet.
    #[must_use]
    pub fn encode(self) -> &'static [u8] {
        match self {
            Self::Go => b"go",
            Self::Off => b"off",
            Self::Farewell { reload: false, upgrade: false } => b"farewell",
            Self::Farewell { reload: true, upgrade: false } => b"farewell reload",
            Self::Farewell { reload: false, upgrade: true } => b"farewell upgrade",
            Self::Farewell { reload: true, upgrade: true } => b"farewell reload upgrade",
        }
    }

    /// What a packet says; `None` if it makes no sense.
    #[must_use]
    pub fn decode(packet: &[u8]) -> Option<Self> {
        let farewells = [(false, false), (true, false), (false, true), (true, true)];
        let farewells = farewells.into_iter().map(|(reload, upgrade)| Self::Farewell { reload, upgrade });
        farewells.chain([Self::Go, Self::Off]).find(|answer| answer.encode() == packet)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bequest() -> Bequest {
        let willed = |fd, address: &str, line, any_family, managers| Willed {
            fd,
            listen: Listen { address: address.parse().unwrap(), any_family: line },
            any_family,
            managers,
        };
        Bequest {
            master: 77,
            generation: Generation(4),
            begun: Moment(1_000_001),
            begun_wall: 1_700_000_000_000_000,
            words: 9,
            standard_error: 3,
            listeners: vec![
                willed(5, "127.0.0.1:0", false, false, false),
                willed(6, "[::]:80", true, true, false),
                willed(7, "[::]:81", false, true, true),
                willed(8, "[fe80::1%2]:82", false, false, true),
            ],
            others: vec![("hand-over-1-send".to_owned(), 11)],
        }
    }

    #[test]
    fn what_is_left_is_understood() {
        let text = bequest().to_string();
        assert_eq!(
            text,
            "1 master=77 generation=4 begun=1000001,1700000000000000 words=9 stderr=3 listen=5,127.0.0.1:0 \
             listen=6,[::]:80,any,both listen=7,[::]:81,both,managers listen=8,[fe80::1%2]:82,managers fd=11,hand-over-1-send"
        );
        assert_eq!(Bequest::parse(&text), Some(bequest()));
        let none = Bequest { listeners: Vec::new(), others: Vec::new(), ..bequest() };
        assert_eq!(Bequest::parse(&none.to_string()), Some(none));
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        let good = bequest().to_string();
        for (from, to) in [
            ("1 master", "2 master"),
            ("master=77", "master=0"),
            ("master=77", "pid=77"),
            ("generation=4", "generation=x"),
            ("begun=1000001,", "begun="),
            ("words=9", "words=2"),
            ("words=9", "words=5"),
            ("stderr=3", ""),
            ("listen=5,127.0.0.1:0", "listen=5"),
            ("listen=5,127.0.0.1:0", "listen=5,localhost:0"),
            ("[::]:80,any,both", "[::]:80,both,any"),
            ("fd=11,hand", "fd=11;hand"),
            ("fd=11,hand", "gift=11,hand"),
            ("-send", "-send "),
        ] {
            let bad = good.replacen(from, to, 1);
            assert_ne!(bad, good);
            assert_eq!(Bequest::parse(&bad), None, "{bad}");
        }
        assert_eq!(Bequest::parse(""), None);
    }

    #[test]
    fn words_are_understood_and_nonsense_is_not() {
        for word in [
            Word::Hello,
            Word::Ready { places: Vec::new(), takes_over: false },
            Word::Ready { places: vec![0, 12], takes_over: false },
            Word::Ready { places: vec![3], takes_over: true },
            Word::Taken,
            Word::Fault("ostler.conf:3:1: no such directive".to_owned()),
        ] {
            assert_eq!(Word::decode(&word.encode()), Some(word.clone()));
            assert_eq!(Answer::decode(&word.encode()), None);
        }
        for (reload, upgrade) in [(false, false), (true, false), (false, true), (true, true)] {
            let farewell = Answer::Farewell { reload, upgrade };
            assert_eq!(Answer::decode(farewell.encode()), Some(farewell));
            assert_eq!(Word::decode(farewell.encode()), None);
        }
        for answer in [Answer::Go, Answer::Off] {
            assert_eq!(Answer::decode(answer.encode()), Some(answer));
        }
        for nonsense in ["", "hello you", "ready x", "taken 1", "readyy", "go on"] {
            assert_eq!(Word::decode(nonsense.as_bytes()), None, "{nonsense}");
            assert_eq!(Answer::decode(nonsense.as_bytes()), None, "{nonsense}");
        }
        assert_eq!(Word::decode(&[0xff]), None);
        let long = Word::Fault("\u{e4}".repeat(LONGEST));
        assert!(long.encode().len() <= LONGEST && Word::decode(&long.encode()).is_some());
    }
}
