//! Do chunked bodies end where the strict reader says, and is there one answer to where any body ends?

use super::strict::{self, Chunks, Fields as Lines, Framing, Taste};
use super::ways_to_cut;
use ostler::http::{
    Asked, Body, FieldSlots, Fields, HeadLimits, Method, Piece, Reason, RequestBody, RequestHead,
    ResponseBody, ResponseHead, TRAILER_LIMITS, chunked as coding,
};

/// What a body came to.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
struct Read {
    data: Vec<u8>,
    trailers: Vec<u8>,
    end: Option<usize>,
    fault: Option<Reason>,
}

/// Reads `input` as it comes in pieces that end at `cuts`, keeping what is not consumed, which is bounded.
fn read(mut body: Body, input: &[u8], cuts: &[usize]) -> Read {
    let mut read = Read::default();
    let mut start = 0;
    for end in cuts {
        loop {
            let here = &input[start..*end];
            let (consumed, piece) = match body.next(here) {
                Ok(step) => step,
                Err(fault) => {
                    read.fault = Some(fault.reason);
                    return read;
                }
            };
            assert!(consumed <= here.len());
            start += consumed;
            match piece {
                Piece::Data(range) => {
                    assert!(!range.is_empty() && range.end <= consumed);
                    read.data.extend_from_slice(&here[range]);
                }
                Piece::Trailers(range) => read.trailers.extend_from_slice(&here[range]),
                Piece::More => {
                    assert!(end - start <= TRAILER_LIMITS.total, "what waits for more is bounded");
                    break;
                }
                Piece::End => {
                    assert!(body.is_done() && body.end_of_input().is_ok());
                    read.end = Some(start);
                    return read;
                }
            }
        }
    }
    assert!(!body.is_done());
    read
}

fn read_all_ways(body: &Body, input: &[u8]) -> Read {
    let whole = read(body.clone(), input, &[input.len()]);
    for cuts in ways_to_cut(input, input.len()) {
        assert_eq!(whole, read(body.clone(), input, &cuts), "however it is cut");
    }
    whole
}

/// Any bytes as a chunked body, of either side.
pub fn chunked(bytes: &[u8]) {
    let got = read_all_ways(&Body::for_request(RequestBody::Chunked), bytes);
    assert_eq!(got, read_all_ways(&Body::for_response(ResponseBody::Chunked), bytes), "whosever it is");
    let strict = strict::chunks(bytes, Taste::Received);
    match (&got, &strict) {
        (Read { fault: Some(reason), .. }, Ok(_)) => {
            let is_limit = matches!(
                reason,
                Reason::ChunkOverhead | Reason::FieldTooLarge | Reason::TooManyFields | Reason::HeadTooLarge
            );
            // A fault may show before the line is whole in which it is.
            let is_early = !matches!(strict, Ok(Chunks { whole: true, .. }));
            assert!(is_limit || is_early, "refused ({reason}) and sound: {strict:?}");
        }
        (Read { fault: None, end: Some(end), .. }, Ok(chunks)) => {
            assert!(chunks.whole && chunks.length == *end, "{got:?} {chunks:?}");
            assert_eq!(got.data, chunks.data);
            assert_eq!(lines(&got.trailers), chunks.trailers);
            written_again(&got.data);
        }
        (Read { fault: None, end: None, .. }, Ok(chunks)) => {
            assert!(!chunks.whole, "a whole body is whole: {chunks:?}");
            assert_eq!(got.data, chunks.data);
        }
        (Read { fault: None, end: Some(_), .. }, Err(why)) => panic!("taken and not sound ({why}): {got:?}"),
        (_, Err(_)) => {}
    }
}

fn lines(section: &[u8]) -> Lines {
    if section.is_empty() {
        return Lines::new();
    }
    let mut slots = FieldSlots::new();
    let fields = Fields::of_trailers(section, &mut slots).expect("what a body gave out can be read");
    let pair = |name: &[u8]| String::from_utf8_lossy(name).to_ascii_lowercase();
    fields.iter().map(|field| (pair(field.name), field.value.to_vec())).collect()
}

/// What we write of data is a body that the strict reader takes for it.
fn written_again(data: &[u8]) {
    let mut wire = Vec::new();
    for piece in data.chunks(7) {
        coding::write_chunk(piece, &mut wire);
    }
    wire.extend_from_slice(coding::LAST_CHUNK);
    let read = strict::chunks(&wire, Taste::Sent).expect("what we write is sound");
    assert!(read.whole && read.length == wire.len() && read.data == data);
}

/// Any bytes as the field lines of a message: where its body ends, there is one answer or none, for requests and
/// responses of both versions, and for every kind of status.
pub fn framing(bytes: &[u8]) {
    const BODY: &[u8] = b"5\r\nhello\r\n0\r\nX: y\r\n\r\n0123456789";
    let message = |first: &str| [first.as_bytes(), b"\r\n", bytes, b"\r\n\r\n", BODY].concat();
    for version in ["1.1", "1.0"] {
        let text = message(&format!("POST / HTTP/{version}\r\nHost: h"));
        super::heads::request(&text);
        let end = text.len() - BODY.len();
        let mut slots = FieldSlots::new();
        if let Ok(head) = RequestHead::parse(&text[..end], &mut slots, &HeadLimits::RESPONSE) {
            let got = read_all_ways(&Body::for_request(head.body), BODY);
            let strict = strict::request(&text, Taste::Received);
            same(&got, strict.expect("as sound as its head").expect("whole"), end);
        }
        for (status, method) in [
            (200, Method::Get),
            (200, Method::Head),
            (204, Method::Get),
            (304, Method::Get),
            (101, Method::Get),
        ] {
            let text = message(&format!("HTTP/{version} {status} OK"));
            super::heads::response(&text);
            let end = text.len() - BODY.len();
            let mut slots = FieldSlots::new();
            let asked = Asked { method, upgrade: true };
            if let Ok(head) = ResponseHead::parse(&text[..end], &mut slots, &HeadLimits::RESPONSE, asked) {
                let got = read_all_ways(&Body::for_response(head.body), BODY);
                let strict = strict::response(&text, method == Method::Head, Taste::Received);
                same(&got, strict.expect("as sound as its head").expect("whole"), end);
            }
        }
    }
}

fn same(got: &Read, message: strict::Message, head: usize) {
    assert_eq!(got.fault, None);
    assert_eq!(got.data, message.body);
    assert_eq!(got.end.is_some(), message.whole && message.framing != Some(Framing::UntilClose));
    if let Some(end) = got.end {
        assert_eq!(head + end, message.length);
    }
}
