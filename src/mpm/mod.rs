//! The child: moves bytes.
//!
//! Three drivers share one connection engine; they differ only in who waits for whom.
//!
//! | file | its question |
//! |---|---|
//! | `child` | what do a child's threads share, and how does it begin and end? |
//! | `steward` | what does the child's first thread do while the others serve? |
//! | `crew` | how many serving threads are there, and what if the machine has too few? |
//! | `progress` | do the serving threads get on? |
//! | `giveback` | when does a child give memory back after a crowd? |
//! | `lead` | who waits in the poll, who is called up? |
//! | `event`, `worker`, `prefork` | the drivers |
//! | `blocking` | how does a thread serve one connection to its end? |
//! | `nap` | when may that thread wait in the read itself? |
//! | `accept` | which listeners are watched, and what comes through them? |
//! | `head` | what is asked for, and does it have a worker row? |
//! | `occupancy` | how full is a child, and who is told? |
//! | `leaving` | when and how does a child leave? |
//! | `handover` | when and how does a connection go to another child? |
//! | `balance` | does a child have more than its share? |
//! | `passage` | what is said about a connection that does? |
//! | `rows` | which worker row does an exchange hold, and who waits for one? |
//! | `table` | which connections are there, and which of them has news? |
//! | `timers` | who is due? |
//! | `tokens` | what is an event of the poll about? |
//! | `conn` | what does one client connection do next? |
//! | `dial` | how does an exchange get its connection to a backend? |
//! | `relay` | how do an exchange's bytes move? |
//! | `ending` | how does an exchange end? |
//! | `splice` | which bytes of large bodies need not come by, and how do they move? |
//! | `pipes` | who has which pipe for that? |
//! | `backends` | which connections to backends are idle, who waits for one, which backend is well? |
//! | `quota` | when is a child used up? |
//! | `upstream` | how are backend connections opened, lent, kept? |
//! | `record` | what do logs and scoreboard learn of an exchange? |

mod accept;
mod backends;
mod balance;
mod blocking;
pub mod child;
pub mod conn;
mod crew;
mod dial;
mod ending;
mod event;
mod giveback;
mod handover;
mod head;
pub mod lead;
mod leaving;
pub mod nap;
mod occupancy;
pub mod passage;
pub mod pipes;
mod prefork;
mod progress;
mod quota;
mod record;
pub mod relay;
pub mod rows;
mod splice;
mod steward;
pub mod table;
pub mod timers;
pub mod tokens;
pub mod upstream;
mod worker;
