//! Words to values: numbers, times, addresses, names. Each says in a sentence what it would have taken.

use super::diagnostic::{nearest, quoted};
use super::model::{HostAddress, Listen, Mpm, ReadTimeout, Require, ServerTokens, Via};
use ipnet::IpNet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::num::NonZeroU32;
use std::time::Duration;

/// Why a word is no such value.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ValueError {
    /// What is wrong, with the word in it.
    pub message: String,
    /// What to write instead, if that is not in the message.
    pub hint: Option<String>,
}

impl ValueError {
    fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), hint: None }
    }

    /// Adds what to write instead, if nothing is said yet.
    #[must_use]
    pub fn or_hint(self, hint: impl Into<String>) -> Self {
        Self { hint: self.hint.or_else(|| Some(hint.into())), ..self }
    }

    fn hint(self, hint: impl Into<String>) -> Self {
        Self { hint: Some(hint.into()), ..self }
    }
}

type Result<T> = std::result::Result<T, ValueError>;

/// `On` or `Off`.
///
/// # Errors
/// Anything else.
pub fn on_off(word: &str) -> Result<bool> {
    choice(word, &[("On", true), ("Off", false)])
}

/// One of a few words, capitals or not.
///
/// # Errors
/// Lists them, and the nearest one.
pub fn choice<T: Copy>(word: &str, known: &[(&str, T)]) -> Result<T> {
    if let Some(&(_, value)) = known.iter().find(|(name, _)| word.eq_ignore_ascii_case(name)) {
        return Ok(value);
    }
    let names: Vec<&str> = known.iter().map(|&(name, _)| name).collect();
    let (last, others) = names.split_last().expect("a choice has a word to choose");
    let wanted =
        if others.is_empty() { (*last).to_owned() } else { format!("{} or {last}", others.join(", ")) };
    let error = ValueError::new(format!("{} is not {wanted}", quoted(word)));
    Err(match nearest(word, names.iter().copied()) {
        Some(near) if names.len() > 2 => error.hint(format!("did you mean {near}?")),
        _ => error,
    })
}

/// A whole number, not negative.
///
/// # Errors
/// Signs, other letters, or more than 64 bits.
pub fn number(word: &str) -> Result<u64> {
    let is_digits = |word: &str| !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_digit());
    if !is_digits(word) {
        return Err(ValueError::new(if word.strip_prefix('-').is_some_and(is_digits) {
            format!("{} is below 0", quoted(word))
        } else {
            format!("{} is not a number", quoted(word))
        }));
    }
    word.parse().map_err(|_| ValueError::new(format!("{} is too large", quoted(word))))
}

/// A whole number within bounds.
///
/// # Errors
/// As [`number`], and anything outside of the bounds.
pub fn number_within(word: &str, least: u64, most: u64) -> Result<u64> {
    let value = number(word)?;
    if value < least {
        return Err(ValueError::new(format!("{value} is too small; {least} is the least")));
    }
    if value > most {
        return Err(ValueError::new(format!("{value} is too large; {most} is the most")));
    }
    Ok(value)
}

/// A whole number of 32 bits.
///
/// # Errors
/// As [`number`].
pub fn count(word: &str) -> Result<u32> {
    number_within(word, 0, u32::MAX.into()).map(narrow)
}

fn narrow(value: u64) -> u32 {
    u32::try_from(value).unwrap_or(u32::MAX)
}

/// Longer waits would overflow a clock of milliseconds in 32 bits; nobody waits for three weeks.
const LONGEST_WAIT: Duration = Duration::from_secs(21 * 24 * 3600);

/// A time: seconds, or a number with `ms`, `s`, `mi` (minutes) or `h`, as in httpd.
///
/// # Errors
/// Other units, no number, or more than 21 days.
pub fn duration(word: &str) -> Result<Duration> {
    let digits = word.len() - word.trim_start_matches(|letter: char| letter.is_ascii_digit()).len();
    let (value, unit) = word.split_at(digits);
    if digits == 0 {
        return Err(match number(word) {
            Err(error) if error.message.ends_with("below 0") => error,
            _ => ValueError::new(format!("{} is not a time", quoted(word)))
                .hint("write a number of seconds, or a number with ms, s, mi or h"),
        });
    }
    let value = number(value)?;
    let seconds = |each: u64| value.checked_mul(each).map(Duration::from_secs);
    let time = match unit.to_ascii_lowercase().as_str() {
        "" | "s" => seconds(1),
        "ms" => Some(Duration::from_millis(value)),
        "mi" | "min" => seconds(60),
        "h" => seconds(3600),
        _ => {
            return Err(ValueError::new(format!("{} is not a unit of time", quoted(unit)))
                .hint("the units are ms, s, mi and h; without one it is seconds"));
        }
    };
    time.filter(|&time| time <= LONGEST_WAIT)
        .ok_or_else(|| ValueError::new(format!("{} is too long; 21 days are the most", quoted(word))))
}

/// A time above zero.
///
/// # Errors
/// As [`duration`], and zero.
pub fn wait(word: &str) -> Result<Duration> {
    match duration(word)? {
        Duration::ZERO => Err(ValueError::new("this time must be above 0")),
        time => Ok(time),
    }
}

/// A user or group: a name, or `#` and a number.
///
/// # Errors
/// What can be neither.
pub fn identity(word: &str) -> Result<String> {
    let fits =
        |letter: char| letter.is_alphanumeric() || matches!(letter, '-' | '_' | '.' | '@' | '\\' | '$');
    match word.strip_prefix('#') {
        // The highest number means "no change" to the kernel.
        Some(digits) => number_within(digits, 0, u64::from(u32::MAX) - 1).map(|id| format!("#{id}")),
        None if word.is_empty() || !word.chars().all(fits) => {
            Err(ValueError::new(format!("{} is not a name", quoted(word))))
        }
        None => Ok(word.to_owned()),
    }
}

/// A number of bytes, with `K`, `M` or `G` (powers of 1024) if that reads better.
///
/// # Errors
/// Other units, no number, or more than 63 bits.
pub fn size(word: &str) -> Result<u64> {
    let (digits, shift) = match word.as_bytes().last() {
        Some(b'k' | b'K') => (&word[..word.len() - 1], 10),
        Some(b'm' | b'M') => (&word[..word.len() - 1], 20),
        Some(b'g' | b'G') => (&word[..word.len() - 1], 30),
        _ => (word, 0),
    };
    let value = number(digits).map_err(|error| {
        if shift == 0 { error } else { ValueError::new(format!("{} is not a size", quoted(word))) }
    })?;
    let most = u64::try_from(i64::MAX).unwrap_or(u64::MAX) >> shift;
    if value > most {
        return Err(ValueError::new(format!("{} is too large", quoted(word))));
    }
    Ok(value << shift)
}

/// An MPM by its name.
///
/// # Errors
/// Anything else.
pub fn mpm(word: &str) -> Result<Mpm> {
    choice(word, &[("event", Mpm::Event), ("worker", Mpm::Worker), ("prefork", Mpm::Prefork)])
}

/// `ServerTokens`.
///
/// # Errors
/// Anything else.
pub fn server_tokens(word: &str) -> Result<ServerTokens> {
    choice(
        word,
        &[
            ("Full", ServerTokens::Full),
            ("OS", ServerTokens::Full),
            ("Minimal", ServerTokens::Minimal),
            ("Min", ServerTokens::Minimal),
            ("Minor", ServerTokens::Minor),
            ("Major", ServerTokens::Major),
            ("Prod", ServerTokens::ProductOnly),
            ("ProductOnly", ServerTokens::ProductOnly),
        ],
    )
}

/// `ProxyVia`.
///
/// # Errors
/// Anything else.
pub fn via(word: &str) -> Result<Via> {
    choice(word, &[("On", Via::On), ("Off", Via::Off), ("Full", Via::Full), ("Block", Via::Block)])
}

fn port(word: &str) -> Result<u16> {
    match number(word) {
        Ok(value) => u16::try_from(value)
            .map_err(|_| ValueError::new(format!("{} is not a port; 65535 is the highest", quoted(word)))),
        Err(_) => Err(ValueError::new(format!("{} is not a port", quoted(word)))),
    }
}

/// Parts `name:port`, `[v6]:port`, `name` or `[v6]`. The brackets stay off; whether there were any is told.
fn host_and_port(word: &str) -> Result<(&str, bool, Option<u16>)> {
    let (host, bracketed, rest) = match word.strip_prefix('[') {
        Some(inside) => {
            let (host, rest) = inside
                .split_once(']')
                .ok_or_else(|| ValueError::new(format!("{} has no closing bracket", quoted(word))))?;
            (host, true, rest)
        }
        None => {
            let end = word.find(':').unwrap_or(word.len());
            if word[end..].bytes().filter(|&byte| byte == b':').count() > 1 {
                return Err(ValueError::new(format!("{} needs brackets around its address", quoted(word)))
                    .hint("write [2001:db8::1]:80"));
            }
            (&word[..end], false, &word[end..])
        }
    };
    let port = match rest.strip_prefix(':') {
        Some(digits) => Some(port(digits)?),
        None if rest.is_empty() => None,
        None => return Err(ValueError::new(format!("{} is no address with a port", quoted(word)))),
    };
    Ok((host, bracketed, port))
}

fn ip(word: &str, bracketed: bool) -> Result<IpAddr> {
    let address =
        if bracketed { word.parse().map(IpAddr::V6).ok() } else { word.parse().map(IpAddr::V4).ok() };
    address.ok_or_else(|| {
        let error = ValueError::new(format!("{} is not an address", quoted(word)));
        if word.parse::<Ipv6Addr>().is_ok() {
            error.hint(format!("write it in brackets: [{word}]"))
        } else {
            error.hint("names are not looked up here; write the address, such as 192.0.2.1 or [2001:db8::1]")
        }
    })
}

/// `port`, `address:port`, `[v6]:port` or `*:port`.
///
/// # Errors
/// Names, missing ports, and what is no address.
pub fn listen(word: &str) -> Result<Listen> {
    let any =
        |port| Listen { address: SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), port), any_family: true };
    if word.bytes().all(|byte| byte.is_ascii_digit()) && !word.is_empty() {
        return port(word).map(any);
    }
    // An address of one link carries a zone, which only the whole knows how to read.
    if word.starts_with('[') && word.contains('%') {
        return word.parse().map(|address| Listen { address, any_family: false }).map_err(|_| {
            ValueError::new(format!("{} is not an address", quoted(word)))
                .hint("write the zone as the number of the interface: [fe80::1%2]:80")
        });
    }
    let (host, bracketed, port) = host_and_port(word)?;
    let address = if host == "*" && !bracketed { None } else { Some(ip(host, bracketed)?) };
    let port = port.ok_or_else(|| {
        ValueError::new(format!("{} has no port", quoted(word))).hint(format!("write {word}:80"))
    })?;
    Ok(match address {
        None => any(port),
        Some(ip) => Listen { address: SocketAddr::new(ip, port), any_family: false },
    })
}

/// `port` of 127.0.0.1, `address:port`, `[v6]:port` or `*:port`.
///
/// # Errors
/// As [`listen`].
pub fn status_listen(word: &str) -> Result<Listen> {
    let is_port = !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_digit());
    if is_port {
        let address = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port(word)?);
        return Ok(Listen { address, any_family: false });
    }
    listen(word).map_err(|error| error.or_hint("write a port, an address with a port, or unix:/path"))
}

/// One address of `<VirtualHost>`: `*`, `_default_`, `*:80`, `192.0.2.1`, `[2001:db8::1]:80`. No connection comes to
/// an unspecified address, so that one stands for every address, of either family, as in httpd.
///
/// # Errors
/// Names, and what is no address.
pub fn host_address(word: &str) -> Result<HostAddress> {
    // A port of `*` is any port.
    let word_without_star = word.strip_suffix(":*").unwrap_or(word);
    let (host, bracketed, port) = host_and_port(word_without_star)?;
    let everywhere = !bracketed && (host == "*" || host.eq_ignore_ascii_case("_default_"));
    let ip = if everywhere { None } else { Some(ip(host, bracketed)?) };
    let ip = ip.filter(|ip| !ip.to_canonical().is_unspecified());
    Ok(HostAddress { ip, port: port.filter(|&port| port != 0) })
}

/// A name of a host, or its address (v6 in brackets), in lower case.
fn host_name(word: &str, bracketed: bool) -> Result<String> {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    if bracketed {
        return ip(word, true).map(|address| format!("[{address}]"));
    }
    let name = word.trim_end_matches('.');
    if name.is_empty() || name.len() > 253 || !name.bytes().all(fits) {
        return Err(ValueError::new(format!("{} is not the name of a host", quoted(word))));
    }
    Ok(name.to_ascii_lowercase())
}

/// `ServerName`: `[http://]name[:port]`.
///
/// # Errors
/// Other schemes, letters that no name has.
pub fn server_name(word: &str) -> Result<(String, Option<u16>)> {
    let authority = match word.split_once("://") {
        None => word,
        Some((scheme, rest)) if scheme.eq_ignore_ascii_case("http") => rest,
        Some((scheme, _)) => {
            return Err(ValueError::new(format!("{} in ServerName is not built yet", quoted(scheme)))
                .hint("write the name alone"));
        }
    };
    let (host, bracketed, port) = host_and_port(authority)?;
    Ok((host_name(host, bracketed)?, port))
}

/// A name of `ServerAlias`, in lower case; `*` and `?` are wildcards.
///
/// # Errors
/// Letters that no name has.
pub fn server_alias(word: &str) -> Result<String> {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.*?[]:".contains(&byte);
    let name = word.trim_end_matches('.');
    if name.is_empty() || !name.bytes().all(fits) {
        return Err(ValueError::new(format!("{} is not the name of a host", quoted(word))));
    }
    Ok(name.to_ascii_lowercase())
}

/// Where a backend is, as far as a url says.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct BackendUrl {
    /// The stream socket, if `unix:path|` stood before the url.
    pub socket: Option<String>,
    /// The name or address, in lower case, without brackets.
    pub host: String,
    /// The port, 80 if none was named.
    pub port: u16,
    /// The path; empty if none was named.
    pub path: String,
}

impl BackendUrl {
    /// The address that needs no looking up, if it is one.
    #[must_use]
    pub fn ip(&self) -> Option<IpAddr> {
        self.host.parse().ok()
    }

    /// `name:port` as in a Host field; 80 is left out, v6 is bracketed.
    #[must_use]
    pub fn authority(&self) -> String {
        let host = self.bracketed();
        if self.port == 80 { host } else { format!("{host}:{}", self.port) }
    }

    /// As logs and status show it: `http://127.0.0.1:3000`, `unix:/run/app.sock`.
    #[must_use]
    pub fn shown(&self) -> String {
        match &self.socket {
            Some(path) => format!("unix:{path}"),
            None => format!("http://{}", self.authority()),
        }
    }

    fn bracketed(&self) -> String {
        if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() }
    }
}

/// `http://host[:port][/path]`, or `unix:/socket|http://host[/path]`.
///
/// # Errors
/// Schemes that are not built yet, and what is no url.
pub fn backend_url(word: &str) -> Result<BackendUrl> {
    let (socket, url) = match word.get(..5) {
        Some(start) if start.eq_ignore_ascii_case("unix:") => {
            let (path, url) = word[5..].split_once('|').ok_or_else(|| {
                ValueError::new(format!("{} names a socket but no url", quoted(word)))
                    .hint("write unix:/path/of/socket|http://name/")
            })?;
            if !path.starts_with('/') {
                return Err(ValueError::new(format!("the socket {} is not an absolute path", quoted(path))));
            }
            if path.chars().any(char::is_control) {
                return Err(ValueError::new("the path of a socket has a control character"));
            }
            // The kernel's sockaddr_un holds 108 bytes with the closing zero.
            if path.len() > 107 {
                return Err(ValueError::new("the path of a socket can have 107 bytes at most"));
            }
            (Some(path.to_owned()), url)
        }
        _ => (None, word),
    };
    let Some((scheme, rest)) = url.split_once(':') else {
        return Err(ValueError::new(format!("{} is not a url", quoted(word)))
            .hint("write http://address:port/, or ! for a path that is not to be proxied"));
    };
    match scheme.to_ascii_lowercase().as_str() {
        "http" => {}
        "https" => return Err(ValueError::new("TLS to backends is not built yet")),
        "balancer" => return Err(ValueError::new("balancing is not built yet; name one backend")),
        "h2" | "h2c" => return Err(ValueError::new("HTTP/2 to backends is not built yet")),
        "ws" | "wss" => {
            return Err(ValueError::new("ws:// is not built yet").hint("http:// passes upgrades on too"));
        }
        "fcgi" | "scgi" | "ajp" | "uwsgi" | "ftp" | "connect" | "fd" => {
            return Err(ValueError::new(format!("{scheme} backends are not built yet; http is")));
        }
        _ => {
            return Err(ValueError::new(format!("{} is not a url of a backend", quoted(word)))
                .hint("write http://address:port/"));
        }
    }
    let Some(rest) = rest.strip_prefix("//") else {
        return Err(
            ValueError::new(format!("{} is not a url", quoted(word))).hint("write http://address:port/")
        );
    };
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    if authority.contains('@') {
        return Err(ValueError::new("a user in the url of a backend is not built yet"));
    }
    let (host, bracketed, port) = host_and_port(authority)?;
    let host = host_name(host, bracketed)?;
    let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
    if port == Some(0) {
        return Err(ValueError::new("port 0 leads nowhere"));
    }
    // The path goes out as it stands, so it must be one that may.
    if let Some(letter) = path.chars().find(|letter| !letter.is_ascii_graphic() || *letter == '#') {
        return Err(ValueError::new(format!(
            "{} has no place in the path of a url",
            quoted(&letter.to_string())
        ))
        .hint("write it as % and two hexadecimal digits"));
    }
    if path.contains('?') {
        return Err(ValueError::new("a query in the url of a backend is not built yet"));
    }
    Ok(BackendUrl { socket, host, port: port.unwrap_or(80), path: path.to_owned() })
}

/// A network of `Require ip`: an address, `net/bits`, `net/mask`, or the first one to three numbers of a v4 one.
///
/// # Errors
/// What is none of these.
pub fn network(word: &str) -> Result<IpNet> {
    let wrong = || {
        ValueError::new(format!("{} is not a network", quoted(word)))
            .hint("write an address, 192.0.2.0/24, 192.0.2 or 2001:db8::/32")
    };
    let parsed = match word.split_once('/') {
        Some((address, mask)) => match mask.parse::<Ipv4Addr>() {
            Ok(mask) => IpNet::with_netmask(address.parse().map_err(|_| wrong())?, mask.into()).ok(),
            Err(_) => word.parse().ok(),
        },
        None => match word.parse::<IpAddr>() {
            Ok(address) => Some(IpNet::from(address)),
            Err(_) => beginning(word),
        },
    };
    parsed.map(|net| net.trunc()).ok_or_else(wrong)
}

/// `10`, `10.1` or `10.1.2.`
fn beginning(word: &str) -> Option<IpNet> {
    let parts: Vec<&str> = word.strip_suffix('.').unwrap_or(word).split('.').collect();
    if parts.len() > 3 {
        return None;
    }
    let mut octets = [0; 4];
    for (octet, part) in octets.iter_mut().zip(&parts) {
        *octet =
            if part.bytes().all(|byte| byte.is_ascii_digit()) { part.parse().ok()? } else { return None };
    }
    let bits = u8::try_from(parts.len() * 8).ok()?;
    IpNet::new(Ipv4Addr::from(octets).into(), bits).ok()
}

/// The words of a `Require` line.
///
/// # Errors
/// Which word is wrong (counted from 0), and why.
pub fn require(words: &[&str]) -> std::result::Result<Vec<Require>, (usize, ValueError)> {
    let (first, rest) = words.split_first().expect("the table asks for a word");
    match first.to_ascii_lowercase().as_str() {
        "all" => match rest {
            [word] => choice(word, &[("granted", true), ("denied", false)])
                .map(|granted| vec![if granted { Require::AllGranted } else { Require::AllDenied }])
                .map_err(|error| (1, error)),
            _ => Err((0, ValueError::new("\"all\" wants one word: granted or denied"))),
        },
        "local" if rest.is_empty() => Ok(vec![Require::Local]),
        "local" => Err((1, ValueError::new("nothing may follow \"local\""))),
        "ip" if rest.is_empty() => Err((0, ValueError::new("\"ip\" wants one network or more"))),
        "ip" => rest
            .iter()
            .enumerate()
            .map(|(at, word)| network(word).map(Require::Ip).map_err(|error| (at + 1, error)))
            .collect(),
        "not" => Err((0, ValueError::new("\"not\" is not built yet; name those who may come in"))),
        "host" | "forward-dns" => Err((0, ValueError::new("names are not looked up; \"ip\" serves instead"))),
        "user" | "group" | "valid-user" | "file-owner" | "file-group" => {
            Err((0, ValueError::new("authentication is not built yet")))
        }
        "env" | "method" | "expr" => Err((0, ValueError::new(format!("Require {first} is not built yet")))),
        _ => Err((
            0,
            ValueError::new(format!("{} is not something to require", quoted(first)))
                .hint("write all granted, all denied, local, or ip and networks"),
        )),
    }
}

/// `time[-most][,MinRate=bytes]`.
///
/// # Errors
/// What is wrong with it.
pub fn read_timeout(word: &str) -> Result<ReadTimeout> {
    let (times, rate) = match word.split_once(',') {
        None => (word, None),
        Some((times, rate)) => {
            let Some((_, bytes)) =
                rate.split_once('=').filter(|(name, _)| name.eq_ignore_ascii_case("MinRate"))
            else {
                return Err(ValueError::new(format!("{} is not MinRate=bytes", quoted(rate))));
            };
            (times, NonZeroU32::new(narrow(number_within(bytes, 1, u32::MAX.into())?)))
        }
    };
    let (start, most) = match times.split_once('-') {
        None => (duration(times)?, None),
        Some((start, most)) => (duration(start)?, Some(wait(most)?)),
    };
    if most.is_some() && rate.is_none() {
        return Err(ValueError::new(
            "the second time means nothing without a MinRate that extends the first",
        )
        .hint(format!("write {word},MinRate=500")));
    }
    if most.is_some_and(|most| most <= start) {
        return Err(ValueError::new(format!("in {} the second time must be above the first", quoted(times))));
    }
    Ok(ReadTimeout { start: Some(start).filter(|time| !time.is_zero()), max: most, min_rate: rate })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_units() {
        for (word, want) in [
            ("0", Some(0)),
            ("5", Some(5000)),
            ("5s", Some(5000)),
            ("300ms", Some(300)),
            ("2MI", Some(120_000)),
            ("2min", Some(120_000)),
            ("1h", Some(3_600_000)),
            ("1814400", Some(1_814_400_000)),
            ("1814401", None),
            ("18446744073709551615h", None),
            ("99999999999999999999", None),
            ("", None),
            ("ms", None),
            ("-1", None),
            ("1.5", None),
            ("5 ms", None),
            ("5d", None),
        ] {
            assert_eq!(duration(word).ok().map(|time| time.as_millis()), want, "{word:?}");
        }
    }

    #[test]
    fn sizes_have_powers_of_1024() {
        for (word, want) in [
            ("0", Some(0)),
            ("1073741824", Some(1 << 30)),
            ("8k", Some(8192)),
            ("8M", Some(8 << 20)),
            ("2G", Some(2 << 30)),
            ("9223372036854775807", Some(i64::MAX as u64)),
            ("9223372036854775808", None),
            ("8589934592G", None),
            ("", None),
            ("K", None),
            ("1T", None),
            ("-1", None),
            ("1é", None),
        ] {
            assert_eq!(size(word).ok(), want, "{word:?}");
        }
    }

    #[test]
    fn networks_have_many_spellings() {
        for (word, want) in [
            ("10", Some("10.0.0.0/8")),
            ("10.", Some("10.0.0.0/8")),
            ("10.1", Some("10.1.0.0/16")),
            ("10.1.2", Some("10.1.2.0/24")),
            ("10.1.2.3", Some("10.1.2.3/32")),
            ("10.1.2.3/8", Some("10.0.0.0/8")),
            ("10.1.2.3/255.255.0.0", Some("10.1.0.0/16")),
            ("::1", Some("::1/128")),
            ("2001:db8::1/32", Some("2001:db8::/32")),
            ("10.1.2.3/255.0.255.0", None),
            ("10.1.2.3/33", None),
            ("256", None),
            ("1.2.3.4.5", None),
            ("10..1", None),
            ("+1", None),
            ("host", None),
            ("", None),
        ] {
            assert_eq!(network(word).ok().map(|net| net.to_string()).as_deref(), want, "{word:?}");
        }
    }

    #[test]
    fn names_of_hosts_are_lower_case_and_without_a_closing_dot() {
        for (word, want) in [
            ("WWW.Example.Org", Some(("www.example.org", None))),
            ("example.org.:8080", Some(("example.org", Some(8080)))),
            ("http://x:80", Some(("x", Some(80)))),
            ("[2001:DB8::1]:80", Some(("[2001:db8::1]", Some(80)))),
            ("a:b", None),
            (".", None),
            ("", None),
            ("a:1:2", None),
            ("[x]", None),
        ] {
            let want = want.map(|(name, port)| (name.to_owned(), port));
            assert_eq!(server_name(word).ok(), want, "{word:?}");
        }
    }
}
