//! What the master itself knows of its children: its private table, by slot.
//!
//! The scoreboard is gossip; this is what the master acts by. A pid is signalled only while it stands here,
//! that is, until the kernel has handed over its status, so the number cannot have gone to somebody else.

use crate::clock::Tick;
use crate::ids::{ChildPid, Generation, SlotIndex};
use crate::master::policy::Recycling;
use crate::master::pulse::Pulse;
use crate::orders::{Order, Orders};
use std::collections::VecDeque;
use std::io;
use std::ops::Range;

/// Where a child is on its way.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Stage {
    /// Forked; has not said that it is ready.
    Starting,
    /// It serves.
    Ready,
    /// It accepts no more and finishes what it has.
    Draining(Why),
    /// It was told to leave at once.
    Stopping,
    /// It was sent SIGKILL.
    Killed,
}

/// Why a child drains.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Why {
    /// It has served its number of requests or connections.
    Recycled,
    /// There were more spare workers than MaxSpare.
    Surplus,
    /// The server stops.
    Stop,
    /// A generation with a newer configuration serves in its place, or it was not to be after all.
    Reload,
    /// It said so itself: somebody sent it TERM, or its requests were used up before an heir was ready.
    Itself,
}

/// A child.
#[derive(Debug)]
pub struct Child {
    /// Its number.
    pub pid: ChildPid,
    /// Its generation.
    pub generation: Generation,
    /// Where it is on its way.
    pub stage: Stage,
    /// Our end of the socket pair.
    pub orders: Orders,
    /// Orders that could not be sent, because the child had not read for long, in their order.
    pub unsent: VecDeque<Order>,
    /// Whether the other end is closed: it is about to end.
    pub deaf: bool,
    /// When it was forked.
    pub forked: Tick,
    /// When it said that it was ready.
    pub ready: Option<Tick>,
    /// Whether it has said that its end is near and no heir is ready yet.
    pub near_end: bool,
    /// The child whose place it takes once it is ready.
    pub heir_of: Option<ChildPid>,
    /// Its pings and answers.
    pub pulse: Pulse,
}

impl Child {
    /// Whether it serves or is about to: what the spare arithmetic counts.
    #[must_use]
    pub fn is_active(&self) -> bool {
        matches!(self.stage, Stage::Starting | Stage::Ready)
    }

    /// Sends an order, or keeps one that must arrive until [`Child::catch_up`]: a child that has not read for long
    /// has no room for more.
    ///
    /// # Errors
    /// If it will not arrive.
    pub fn tell(&mut self, order: Order) -> io::Result<()> {
        // Whoever is to stop at once need not hear what came before.
        if order == Order::Stop {
            self.unsent.clear();
        }
        if self.unsent.is_empty() {
            match self.orders.send_order(order) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock && order.must_arrive() => {}
                sent => return sent,
            }
        } else if !order.must_arrive() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        self.unsent.push_back(order);
        Ok(())
    }

    /// Sends what has been kept, as far as there is room. Whether something is left.
    pub fn catch_up(&mut self) -> bool {
        while let Some(&order) = self.unsent.front() {
            match self.orders.send_order(order) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return true,
                // Sent; or it is gone, and needs no order any more.
                Ok(()) | Err(_) => self.unsent.pop_front(),
            };
        }
        false
    }

    /// Whether it goes, by order or of its own accord.
    #[must_use]
    pub fn is_leaving(&self) -> bool {
        !self.is_active()
    }
}

/// All children, by slot.
#[derive(Debug)]
pub struct Children {
    /// Up to the highest slot that is taken: a look at all is a look at few, however many there may be.
    slots: Vec<Option<Child>>,
    limit: u32,
}

impl Children {
    /// A table of `limit` slots, all free.
    #[must_use]
    pub fn new(limit: u32) -> Self {
        Self { slots: Vec::new(), limit }
    }

    /// There is room for so many from now on. Those beyond stay until they are gone.
    pub fn set_limit(&mut self, limit: u32) {
        self.limit = limit;
    }

    /// The lowest free one of these slots of a board: there may be a larger one for the generation that comes up,
    /// whose children are not to be confused with those on this one.
    #[must_use]
    pub fn free_slot(&self, slots: Range<u32>) -> Option<SlotIndex> {
        (slots.start..slots.end.min(self.limit)).map(SlotIndex).find(|&slot| self.get(slot).is_none())
    }

    /// How many slots of a board of `slots` are free.
    #[must_use]
    pub fn free_slots(&self, slots: u32) -> u32 {
        let limit = self.limit.min(slots);
        let taken = self.iter().filter(|(slot, _)| slot.0 < limit).count();
        limit.saturating_sub(u32::try_from(taken).unwrap_or(u32::MAX))
    }

    /// Puts a new child into a free slot.
    pub fn insert(&mut self, slot: SlotIndex, child: Child) {
        assert!(slot.0 < self.limit && self.get(slot).is_none(), "a slot holds one child");
        if self.slots.len() <= slot.index() {
            self.slots.resize_with(slot.index() + 1, || None);
        }
        self.slots[slot.index()] = Some(child);
    }

    /// Takes the child out that has this number.
    pub fn remove(&mut self, pid: ChildPid) -> Option<(SlotIndex, Child)> {
        let slot = self.slot_of(pid)?;
        let child = self.slots[slot.index()].take();
        while self.slots.last().is_some_and(Option::is_none) {
            self.slots.pop();
        }
        child.map(|child| (slot, child))
    }

    /// The child in `slot`.
    #[must_use]
    pub fn get(&self, slot: SlotIndex) -> Option<&Child> {
        self.slots.get(slot.index())?.as_ref()
    }

    /// The child in `slot`.
    pub fn get_mut(&mut self, slot: SlotIndex) -> Option<&mut Child> {
        self.slots.get_mut(slot.index())?.as_mut()
    }

    /// The slot of the child that has this number.
    #[must_use]
    pub fn slot_of(&self, pid: ChildPid) -> Option<SlotIndex> {
        self.iter().find(|(_, child)| child.pid == pid).map(|(slot, _)| slot)
    }

    /// All of them, lowest slot first.
    pub fn iter(&self) -> impl Iterator<Item = (SlotIndex, &Child)> {
        (0..).map(SlotIndex).zip(&self.slots).filter_map(|(slot, child)| Some((slot, child.as_ref()?)))
    }

    /// All of them, lowest slot first.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = (SlotIndex, &mut Child)> {
        (0..).map(SlotIndex).zip(&mut self.slots).filter_map(|(slot, child)| Some((slot, child.as_mut()?)))
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.slots.iter().all(Option::is_none)
    }

    /// How many satisfy `test`.
    pub fn count(&self, test: impl Fn(&Child) -> bool) -> u32 {
        count(self.iter().filter(|(_, child)| test(child)))
    }

    /// Whether the child of this number has an heir that starts.
    #[must_use]
    pub fn has_heir(&self, pid: ChildPid) -> bool {
        self.iter().any(|(_, child)| child.heir_of == Some(pid))
    }

    /// Those in the course of being replaced because they have served their number: heirs that start, and the old
    /// that finish, apart by whether they have nothing left but tunnels, as `has_only_tunnels` says of a slot.
    #[must_use]
    pub fn recycling(&self, has_only_tunnels: impl Fn(SlotIndex) -> bool) -> Recycling {
        let mut recycling = Recycling::default();
        for (slot, child) in self.iter() {
            match child.stage {
                Stage::Starting if child.heir_of.is_some() => recycling.changing += 1,
                Stage::Draining(Why::Recycled) if has_only_tunnels(slot) => recycling.lingering += 1,
                Stage::Draining(Why::Recycled) => recycling.changing += 1,
                _ => {}
            }
        }
        recycling
    }
}

fn count<T>(items: impl Iterator<Item = T>) -> u32 {
    u32::try_from(items.count()).expect("there are at most as many as slots")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::orders::{Heard, Heir};
    use crate::sys::socket;

    fn child(pid: i32, stage: Stage) -> Child {
        Child {
            pid: ChildPid::new(pid).unwrap(),
            generation: Generation(1),
            stage,
            orders: Orders::new(socket::pair().unwrap().0),
            unsent: VecDeque::new(),
            deaf: false,
            forked: Tick(0),
            ready: None,
            near_end: false,
            heir_of: None,
            pulse: Pulse::default(),
        }
    }

    #[test]
    fn slots_are_found_lowest_first_and_given_back() {
        let mut children = Children::new(3);
        assert!(children.is_empty());
        for pid in [10, 20, 30] {
            let slot = children.free_slot(0..3).unwrap();
            children.insert(slot, child(pid, Stage::Starting));
        }
        assert_eq!((children.free_slot(0..9), children.free_slots(9)), (None, 0));
        let (slot, gone) = children.remove(ChildPid::new(20).unwrap()).unwrap();
        assert_eq!((slot, gone.pid.as_raw()), (SlotIndex(1), 20));
        assert!(children.remove(gone.pid).is_none());
        assert_eq!(children.free_slot(0..3), Some(SlotIndex(1)));
        assert_eq!((children.free_slot(0..1), children.free_slots(1)), (None, 0), "not on a smaller board");
        assert_eq!(children.free_slot(2..9), None, "none behind the limit");
        assert_eq!(children.free_slots(2), 1);
        let pids: Vec<i32> = children.iter().map(|(_, child)| child.pid.as_raw()).collect();
        assert_eq!(pids, [10, 30]);
        assert_eq!(children.slot_of(ChildPid::new(30).unwrap()), Some(SlotIndex(2)));
        for pid in [30, 10] {
            assert!(children.remove(ChildPid::new(pid).unwrap()).is_some());
        }
        assert!(children.is_empty() && children.get(SlotIndex(2)).is_none());
        assert_eq!((children.free_slot(0..3), children.free_slots(3)), (Some(SlotIndex(0)), 3));
    }

    #[test]
    fn recycling_counts_heirs_and_the_old_once_each() {
        let mut children = Children::new(8);
        let heir = |of: i32, stage| Child { heir_of: ChildPid::new(of), ..child(90, stage) };
        children.insert(SlotIndex(0), child(1, Stage::Ready));
        children.insert(SlotIndex(1), heir(1, Stage::Starting));
        let recycling = |children: &Children, tunnels: &[u32]| {
            let Recycling { changing, lingering } = children.recycling(|slot| tunnels.contains(&slot.0));
            (changing, lingering)
        };
        assert_eq!(recycling(&children, &[0]), (1, 0), "it has not left yet");
        assert!(children.has_heir(ChildPid::new(1).unwrap()));
        children.get_mut(SlotIndex(0)).unwrap().stage = Stage::Draining(Why::Recycled);
        let new = children.get_mut(SlotIndex(1)).unwrap();
        new.stage = Stage::Ready;
        new.heir_of = None;
        assert_eq!(recycling(&children, &[]), (1, 0));
        assert_eq!(recycling(&children, &[0, 1]), (0, 1));
        children.get_mut(SlotIndex(0)).unwrap().stage = Stage::Draining(Why::Surplus);
        assert_eq!(recycling(&children, &[]), (0, 0));
    }

    #[test]
    fn an_order_that_must_arrive_is_kept_until_there_is_room() {
        let (ours, theirs) = socket::pair().unwrap();
        let theirs = Orders::new(theirs);
        let mut child = Child { orders: Orders::new(ours), ..child(1, Stage::Ready) };
        let mut pings = 0;
        while child.tell(Order::Ping(pings)).is_ok() {
            pings += 1;
        }
        assert!(pings > 10 && child.unsent.is_empty(), "a ping is not worth keeping");
        let drain = Order::Drain { grace_ms: 1, heir: Heir::Accepts };
        child.tell(Order::LastAt(3)).unwrap();
        child.tell(drain).unwrap();
        assert!(child.tell(Order::Accept).is_err(), "it would overtake the others");
        assert!(child.catch_up(), "there is no room yet");
        let mut heard = Vec::new();
        loop {
            match theirs.recv_order() {
                Heard::Message(order) => heard.push(order),
                Heard::Nothing if !child.unsent.is_empty() => assert!(!child.catch_up()),
                _ => break,
            }
        }
        assert_eq!(heard.len(), pings as usize + 2);
        assert_eq!(heard[pings as usize..], [Order::LastAt(3), drain]);
        while child.tell(Order::Accept).is_ok() {}
        child.tell(drain).unwrap();
        child.tell(Order::Stop).unwrap();
        assert_eq!(child.unsent, [Order::Stop], "nothing else matters any more");
        drop(theirs);
        assert!(!child.catch_up(), "whoever is gone needs no order");
    }
}
