//! `ostler size` on the command line.

use super::{Board, BoardWords, ConfigFile, MpmWord};
use crate::config::model::Mpm;
use crate::config::read_size;
use crate::size::budget::Asked;
use crate::size::inquiry::Form;
use clap::Args;

#[derive(Args, Debug)]
pub(super) struct SizeWords {
    #[command(flatten)]
    board: BoardWords,

    /// Size for this process model, whatever the file says
    #[arg(long, value_name = "NAME", value_enum)]
    mpm: Option<MpmWord>,

    /// What the server may use (K, M, G) [default: what others leave of the machine or control group]
    #[arg(long, value_name = "SIZE", value_parser = size)]
    memory: Option<u64>,

    /// What is to stay free [default: a tenth of what there is; with --memory nothing]
    #[arg(long, value_name = "SIZE", value_parser = size)]
    reserve: Option<u64>,

    /// Idle connections to hold for each worker, under event [default: by MaxConnectionsPerProcess, else 10]
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u32).range(0..=100_000))]
    idle: Option<u32>,

    /// Leave room for a reload under full load, when old and new children are there at one time
    #[arg(long)]
    reload: bool,

    /// Measure a private server, even where a live one runs
    #[arg(long, conflicts_with = "scoreboard")]
    private: bool,

    /// Everything, for programs
    #[arg(long)]
    json: bool,

    /// Print the lines for the configuration only
    #[arg(long, conflicts_with = "json")]
    print_config: bool,
}

/// A size as the configuration has it.
fn size(word: &str) -> Result<u64, String> {
    read_size(word).map_err(|error| error.message)
}

/// What `ostler size` is asked for.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Sizing {
    /// Where the live server would be.
    pub board: Board,
    /// `--mpm`.
    pub mpm: Option<Mpm>,
    /// `--memory`, `--reserve`.
    pub asked: Asked,
    /// `--idle`.
    pub idle: Option<u32>,
    /// `--reload`.
    pub reload: bool,
    /// `--private`.
    pub private: bool,
    /// `--json`, `--print-config`.
    pub form: Form,
}

impl SizeWords {
    pub(super) fn sizing(self) -> Sizing {
        let mpm = self.mpm.map(|word| word.0);
        let board = match self.board.board() {
            // The file is read for the MPM that is asked about: its sections, and its defaults.
            Board::Of(file) => Board::Of(ConfigFile { mpm, ..file }),
            at => at,
        };
        let form = match (self.json, self.print_config) {
            (true, _) => Form::Json,
            (false, true) => Form::Config,
            (false, false) => Form::Page,
        };
        Sizing {
            board,
            mpm,
            asked: Asked { memory: self.memory, reserve: self.reserve },
            idle: self.idle,
            reload: self.reload,
            private: self.private,
            form,
        }
    }
}

impl Sizing {
    /// Without a flag that says otherwise.
    #[must_use]
    pub fn of(board: Board) -> Self {
        Self {
            board,
            mpm: None,
            asked: Asked::default(),
            idle: None,
            reload: false,
            private: false,
            form: Form::Page,
        }
    }
}
