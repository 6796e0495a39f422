//! The man page and the structs tell the same.

use super::*;
use std::mem::offset_of;

const PAGE: &str = include_str!("../../../man/ostler-scoreboard.5");

fn size_of_field<S, F>(_: fn(&S) -> &F) -> usize {
    size_of::<F>()
}

/// Name, offset and size of every field; the pattern makes sure that none is left out.
macro_rules! fields {
    ($name:ident { $($field:ident),* $(,)? }) => {{
        let _ = |$name { $($field: _),* }: $name| ();
        let fields = [$((
            stringify!($field),
            offset_of!($name, $field),
            size_of_field(|row: &$name| &row.$field),
        )),*];
        fields.map(|(name, offset, size)| format!("{name} {offset} {size}")).join("\n")
    }};
}

/// The field lines of one table of the man page, in the same form.
fn documented(title: &str) -> String {
    let heading = format!(".Ss {title}\n");
    let start = PAGE.find(&heading).unwrap_or_else(|| panic!("no table {title}")) + heading.len();
    let table = &PAGE[start..];
    let table = &table[..table.find("\n.El").expect("a table has an end")];
    let lines = table.lines().filter_map(|line| line.strip_prefix(".It Va "));
    let lines = lines.map(|line| line.split(" Ta").take(3).map(str::trim).collect::<Vec<_>>().join(" "));
    lines.collect::<Vec<_>>().join("\n")
}

#[test]
fn the_man_page_tells_every_field_where_it_is() {
    for (title, fields) in [
        (
            "Header",
            fields!(Header {
                magic,
                layout,
                byte_order,
                header_length,
                file_length,
                page_size,
                server_limit,
                thread_limit,
                slots,
                backend_rows,
                slot_entry_size,
                backend_entry_size,
                process_row_size,
                worker_row_size,
                backend_row_size,
                histogram_buckets,
                master_pid,
                slot_table,
                backend_table,
                totals,
                master_start_ticks,
                pid_namespace,
                started_wall,
                started,
                boot_id,
                updated,
                sequence,
                generation,
                generation_wall,
                stopped_wall,
                config_reads,
                reloads_refused,
                reload_outcome,
                flags,
                reload_wall,
                max_request_workers,
                threads_per_child,
                min_spare,
                max_spare,
                start_servers,
                version_length,
                server_name_length,
                config_path_length,
                listeners_length,
                reload_text_length,
                mpm,
                version,
                server_name,
                config_path,
                listeners,
                reload_text,
                groom_pid,
                grooms_replaced,
                groom_started,
                children,
                reserved,
                spare,
            }),
        ),
        ("Slot entry", fields!(SlotEntry { offset, length, workers, backends, lent, reserved })),
        ("Backend entry", fields!(BackendEntry { length, generation, url })),
        (
            "Totals",
            fields!(Totals {
                sequence,
                reserved,
                requests,
                bytes_in,
                bytes_out,
                duration,
                accepted,
                panics,
                children_started,
                children_ended,
                children_failed,
                handed_over,
                taken_over,
                spare,
                latency,
            }),
        ),
        (
            "Process row",
            fields!(ProcessRow {
                pid,
                generation,
                threads,
                flags,
                mpm,
                started,
                ended,
                load,
                takes,
                reserved,
                stage,
                busy,
                panics,
                connections,
            }),
        ),
        (
            "Connection counts",
            fields!(ConnectionCounts {
                total,
                keep_alive,
                wait_io,
                writing,
                closing,
                tunnels,
                accepted,
                handed_over,
                taken_over,
            }),
        ),
        (
            "Worker row",
            fields!(WorkerRow {
                state,
                reserved,
                tid,
                sequence,
                backend,
                requests,
                bytes_in,
                bytes_out,
                duration,
                ended,
                last,
                started,
                lengths,
                client_family,
                client_address,
                protocol,
                host,
                line,
            }),
        ),
        (
            "Backend counters",
            fields!(BackendCounters {
                requests,
                failures,
                connects,
                reused,
                bytes_out,
                bytes_in,
                duration,
                busy,
                reserved,
                latency,
            }),
        ),
    ] {
        assert_eq!(documented(title), fields, "{title}");
    }
}

#[test]
fn the_man_page_knows_the_sizes_the_states_and_the_version() {
    let counters = size_of::<BackendCounters>();
    for part in [
        format!("This page describes layout {LAYOUT_VERSION}.\n"),
        format!("slots * {}\n", size_of::<SlotEntry>()),
        format!("backend_rows * {}\n", size_of::<BackendEntry>()),
        format!("{} + backend_rows * {counters}\n", size_of::<Totals>()),
        format!("at {} + i * {}\n", size_of::<ProcessRow>(), size_of::<WorkerRow>()),
        format!("+ {} + b * {counters}\n", size_of::<LatencyCounts>()),
        format!("\n{BUCKETS} counters of 8 bytes.\n"),
    ] {
        assert!(PAGE.contains(&part), "{part}");
    }
    for state in crate::scoreboard::state::WorkerState::ALL {
        let escape = if state.letter() == '.' { "\\&" } else { "" };
        let entry = format!(".It {} Li {escape}{}\n{}\n", state as u8, state.letter(), state.meaning());
        assert!(PAGE.contains(&entry), "{entry}");
    }
}
