//! One direction of a line: packets come out some time after they went in, in their order, and some are lost.

use std::collections::VecDeque;

/// The space for a packet: more than the MTU.
const PACKET_BYTES: usize = 1600;

/// A packet, or the space for one; it is used again and again.
type Packet = Box<[u8; PACKET_BYTES]>;

struct Carried {
    due: u64,
    len: usize,
    packet: Packet,
}

pub struct Pipe {
    delay: u64,
    /// How many of 2³² packets are lost.
    loss: u64,
    random: u64,
    queue: VecDeque<Carried>,
    /// Space that packets have left behind.
    spare: Vec<Packet>,
}

impl Pipe {
    /// With a delay in nanoseconds and the share of packets that are lost. The same `seed` loses the same
    /// packets.
    pub fn new(delay: u64, loss: f64, seed: u64) -> Pipe {
        Pipe {
            delay,
            loss: (loss * 2_f64.powi(32)) as u64,
            random: seed,
            queue: VecDeque::new(),
            spare: Vec::new(),
        }
    }

    /// Space for the next packet.
    pub fn space(&mut self) -> Packet {
        let spare = self.spare.pop();
        spare.unwrap_or_else(|| Box::new([0; PACKET_BYTES]))
    }

    /// Gives space back.
    pub fn give_back(&mut self, packet: Packet) {
        self.spare.push(packet);
    }

    /// Sends `len` bytes on their way.
    pub fn push(&mut self, now: u64, packet: Packet, len: usize) {
        if self.loses() {
            return self.give_back(packet);
        }
        self.queue.push_back(Carried {
            due: now + self.delay,
            len,
            packet,
        });
    }

    /// Hands the next packet that has arrived to `deliver`; `false` if there is none.
    pub fn arrive(&mut self, now: u64, deliver: impl FnOnce(&[u8])) -> bool {
        let Some(Carried { len, packet, .. }) = self.queue.pop_front_if(|next| next.due <= now)
        else {
            return false;
        };
        deliver(&packet[..len]);
        self.give_back(packet);
        true
    }

    /// Decides about a packet with a linear congruential generator (Knuth's).
    fn loses(&mut self) -> bool {
        self.random = self.random.wrapping_mul(6_364_136_223_846_793_005);
        self.random = self.random.wrapping_add(1_442_695_040_888_963_407);
        self.random >> 32 < self.loss
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn push(pipe: &mut Pipe, now: u64, byte: u8) {
        let mut space = pipe.space();
        space[0] = byte;
        pipe.push(now, space, 1);
    }

    #[test]
    fn packets_arrive_after_the_delay_and_in_order() {
        let mut pipe = Pipe::new(50, 0.0, 1);
        for (now, byte) in [(0, 1), (10, 2), (10, 3)] {
            push(&mut pipe, now, byte);
        }
        let mut arrived = Vec::new();
        for now in 0..100 {
            while pipe.arrive(now, |bytes| arrived.push((now, bytes.to_vec()))) {}
        }
        assert_eq!(arrived, [(50, vec![1]), (60, vec![2]), (60, vec![3])]);
    }

    #[test]
    fn the_given_share_is_lost() {
        for (loss, least, most) in [(0.0, 0, 0), (0.01, 800, 1_200), (1.0, 100_000, 100_000)] {
            let mut pipe = Pipe::new(0, loss, 7);
            let mut arrived = 0;
            for now in 0..100_000 {
                push(&mut pipe, now, 0);
                arrived += i32::from(pipe.arrive(now, |_| {}));
            }
            let lost = 100_000 - arrived;
            assert!((least..=most).contains(&lost), "{loss}: {lost}");
        }
    }
}
