//! A line between two network namespaces: everything that TCP does over a distance happens here, too.
//!
//! The contender and its clients are *near*, in one namespace, the sinks *far*, in the other. Each has a TUN
//! device, and this process carries the packets between them with a delay and without or with loss. Sockets stay
//! in the namespace in which they were made, so that one thread serves both sides and the line.

use std::fs::File;
use std::io;
use std::net::Ipv4Addr;
use std::time::Duration;

use super::namespace::Namespace;
use super::pipe::Pipe;
use super::tun;

/// The addresses of the two ends: a range for benchmarks (RFC 2544).
const NEAR: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 1);
pub const FAR: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 2);
const NETMASK: Ipv4Addr = Ipv4Addr::new(255, 255, 255, 0);

/// How many packets are carried at a time, so that nothing else waits long.
const BATCH: usize = 64;

pub struct Line {
    near: Namespace,
    far: Namespace,
    outside: Namespace,
    near_end: File,
    far_end: File,
    out: Pipe,
    back: Pipe,
}

impl Line {
    /// Lays a line; this thread is near then. An error says what the machine lacks.
    pub fn lay(one_way: Duration, loss: f64) -> Result<Line, String> {
        // Without root there is no way back out of a namespace.
        tun::is_there()?;
        let outside = Namespace::current()?;
        let far = Namespace::create()?;
        let far_end = tun::create("line", FAR, NETMASK)?;
        let near = Namespace::create()?;
        let near_end = tun::create("line", NEAR, NETMASK)?;
        let delay = one_way.as_nanos() as u64;
        Ok(Line {
            near,
            far,
            outside,
            near_end,
            far_end,
            out: Pipe::new(delay, loss, 1),
            back: Pipe::new(delay, loss, 2),
        })
    }

    /// Does something on the far side, such as making a socket.
    pub fn at_the_far_end<T>(&self, act: impl FnOnce() -> Result<T, String>) -> Result<T, String> {
        self.far.enter()?;
        let result = act();
        self.near.enter()?;
        result
    }

    /// Carries what is there; gives whether there was anything.
    pub fn carry(&mut self, now: u64) -> Result<bool, String> {
        let taken = take(&self.near_end, &mut self.out, now)?;
        let is_busy = taken | take(&self.far_end, &mut self.back, now)?;
        let put = put(&self.far_end, &mut self.out, now);
        Ok(is_busy | put | self::put(&self.near_end, &mut self.back, now))
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        // Without root there is no way back: what follows runs in here, where the loopback is up as well.
        let _ = self.outside.enter();
    }
}

/// Takes packets from a device into its pipe.
fn take(device: &File, pipe: &mut Pipe, now: u64) -> Result<bool, String> {
    for count in 0..BATCH {
        let mut space = pipe.space();
        match rustix::io::read(device, &mut space[..]) {
            Ok(len) => pipe.push(now, space, len),
            Err(error) => {
                pipe.give_back(space);
                return match error.kind() {
                    io::ErrorKind::WouldBlock => Ok(count > 0),
                    _ => Err(format!("the line: {error}")),
                };
            }
        }
    }
    Ok(true)
}

/// Puts packets that have arrived into the other device. What it does not take is lost, as on any line.
fn put(device: &File, pipe: &mut Pipe, now: u64) -> bool {
    let arrived = (0..BATCH).take_while(|_| {
        pipe.arrive(now, |bytes| {
            let _ = rustix::io::write(device, bytes);
        })
    });
    arrived.count() > 0
}
