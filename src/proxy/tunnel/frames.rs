//! The frames of a WebSocket, as far as a gateway has to know them: where they end, and how one says goodbye (RFC 6455 §5).

use crate::random::Random;

/// The opcode of Close, and the bit of the last fragment, which each control frame has (RFC 6455 §5.2, §5.5).
const CLOSE: u8 = 0x88;

/// The bit that says that a frame is masked, in the byte of its length.
const MASKED: u8 = 0x80;

/// An endpoint is "going away" (RFC 6455 §7.4.1): what one end says is no fault of the other's, which may come again.
const GOING_AWAY: u16 = 1001;

/// A head without its mask: at most two bytes, and eight of length.
const LONGEST_HEAD: usize = 10;

/// Where in its frames one direction of a WebSocket is.
#[derive(Debug, Default)]
pub(super) struct Frames {
    head: [u8; LONGEST_HEAD],
    /// How much of the head has come.
    filled: usize,
    /// What is still to come behind the head; its mask counts as payload.
    left: u64,
    is_closed: bool,
}

impl Frames {
    /// Takes what belongs to the frame under way, or to the next one where none is; how many of the bytes that is.
    pub(super) fn take(&mut self, bytes: &[u8]) -> usize {
        let mut taken = 0;
        while self.left == 0 {
            let Some(byte) = bytes.get(taken) else { return taken };
            taken += 1;
            self.head[self.filled] = *byte;
            self.filled += 1;
            let Some(length) = self.length() else { continue };
            self.is_closed |= self.head[0] & 0x8f == CLOSE;
            self.filled = 0;
            self.left = length;
            if length == 0 {
                return taken;
            }
        }
        let here = bytes.len() - taken;
        let payload = usize::try_from(self.left).map_or(here, |left| left.min(here));
        self.left -= payload as u64;
        taken + payload
    }

    /// The same with all frames there are; how many bytes there were.
    pub(super) fn take_all(&mut self, bytes: &[u8]) -> usize {
        let mut taken = 0;
        while taken < bytes.len() {
            taken += self.take(&bytes[taken..]);
        }
        taken
    }

    /// Whether no frame is under way, so that another may stand here.
    pub(super) fn is_between(&self) -> bool {
        self.left == 0 && self.filled == 0
    }

    /// Whether Close has passed, or has begun to. No other frame follows it (RFC 6455 §5.5.1).
    pub(super) fn is_closed(&self) -> bool {
        self.is_closed
    }

    /// How long what follows the head is, once the head is whole.
    fn length(&self) -> Option<u64> {
        let [_, second, ..] = self.head;
        if self.filled < 2 {
            return None;
        }
        let mask = if second & MASKED == 0 { 0 } else { 4 };
        let extended = match second & !MASKED {
            126 => 2,
            127 => 8,
            length => return Some(u64::from(length) + mask),
        };
        let length = self.head.get(2..self.filled).filter(|length| length.len() == extended)?;
        let length = length.iter().fold(0, |length: u64, byte| length << 8 | u64::from(*byte));
        Some(length.saturating_add(mask))
    }
}

/// What a server says that goes away.
pub(super) fn close_to_client() -> Vec<u8> {
    let [high, low] = GOING_AWAY.to_be_bytes();
    vec![CLOSE, 2, high, low]
}

/// What a client says that goes away: masked, as all it sends (RFC 6455 §5.3).
pub(super) fn close_to_server() -> Vec<u8> {
    let mask = Random::SYSTEM.bytes::<4>();
    let [high, low] = GOING_AWAY.to_be_bytes();
    vec![CLOSE, MASKED | 2, mask[0], mask[1], mask[2], mask[3], high ^ mask[0], low ^ mask[1]]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A frame of this opcode as an endpoint sends it.
    fn frame(opcode: u8, is_masked: bool, length: usize) -> Vec<u8> {
        let mut frame = vec![0x80 | opcode];
        let mask = if is_masked { MASKED } else { 0 };
        match length {
            0..126 => frame.push(mask | u8::try_from(length).unwrap()),
            126..0x10000 => {
                frame.push(mask | 126);
                frame.extend(u16::try_from(length).unwrap().to_be_bytes());
            }
            _ => {
                frame.push(mask | 127);
                frame.extend((length as u64).to_be_bytes());
            }
        }
        // Payload that would be heads if it were taken for them.
        frame.resize(frame.len() + if is_masked { 4 } else { 0 } + length, CLOSE);
        frame
    }

    #[test]
    fn the_end_of_each_frame_is_known_however_the_bytes_come() {
        let lengths = [0, 1, 125, 126, 127, 0xffff, 0x1_0000];
        let sent: Vec<_> =
            lengths.iter().flat_map(|length| [frame(1, false, *length), frame(2, true, *length)]).collect();
        let (whole, mut ends) = (sent.concat(), Vec::new());
        for frame in &sent {
            ends.push(ends.last().unwrap_or(&0) + frame.len());
        }
        for part in [1, 2, 3, 7, 1000, whole.len()] {
            let (mut frames, mut at, mut found) = (Frames::default(), 0, Vec::new());
            for bytes in whole.chunks(part) {
                let mut rest = bytes;
                while !rest.is_empty() {
                    let taken = frames.take(rest);
                    (at, rest) = (at + taken, &rest[taken..]);
                    if frames.is_between() {
                        found.push(at);
                    }
                }
            }
            assert_eq!(found, ends, "in parts of {part}");
            assert!(!frames.is_closed());
        }
    }

    #[test]
    fn a_close_that_has_begun_to_pass_is_the_last_frame() {
        for close in [close_to_client(), close_to_server(), frame(8, true, 0), frame(8, false, 100)] {
            let mut frames = Frames::default();
            assert_eq!(frames.take(&close), close.len());
            assert!(frames.is_closed() && frames.is_between(), "{close:?}");
        }
        let mut frames = Frames::default();
        frames.take(&frame(9, false, 4));
        assert!(!frames.is_closed(), "a ping is none");
    }

    #[test]
    fn a_length_that_no_frame_has_is_not_between_frames() {
        let mut frames = Frames::default();
        frames.take(&[0x82, MASKED | 127]);
        frames.take(&[0xff; 8]);
        frames.take(&[0; 100]);
        assert!(!frames.is_between());
    }

    #[test]
    fn what_is_said_to_a_server_reads_1001_once_it_is_unmasked() {
        let close = close_to_server();
        let code = [close[6] ^ close[2], close[7] ^ close[3]];
        assert_eq!((&close[..2], u16::from_be_bytes(code)), (&[0x88, 0x82][..], 1001));
    }
}
