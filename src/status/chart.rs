//! Latencies as bars: how many requests took how long, on a scale where each doubling is as wide as the next.
//!
//! Boxes alone, so a browser needs no script and fetches nothing.

use crate::scoreboard::histogram::{BUCKETS, Histogram, bucket, upper_bound};
use crate::status::figures::{grouped, share, span};
use maud::{Markup, html};

/// The most bars of a chart that has the page's width.
const MOST: usize = 72;

/// The most bars of a chart in a table's cell.
const MOST_SMALL: usize = 24;

/// The fewest buckets that a chart spans, so that a single one does not look like all there is.
const FEWEST_BUCKETS: usize = 96;

/// Empty buckets on both sides, so that no mark stands at the very end.
const MARGIN: usize = 12;

/// Shares that are marked: per mille, the name, and its class.
const MARKS: [(u32, &str, &str); 3] = [(500, "median", "p50"), (990, "p99", "p99"), (999, "p99.9", "p999")];

/// What stands below the bars, in microseconds.
const TICKS: [(u64, &str); 9] = [
    (10, "10 us"),
    (100, "100 us"),
    (1_000, "1 ms"),
    (10_000, "10 ms"),
    (100_000, "100 ms"),
    (1_000_000, "1 s"),
    (10_000_000, "10 s"),
    (100_000_000, "100 s"),
    (1_000_000_000, "1000 s"),
];

/// Per cent of the chart that a tick's name takes on a narrow page.
const TICK_ROOM: f64 = 14.0;

/// Requests whose latency lies in a range of buckets.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct Bar {
    /// The shortest latency that counts here, in microseconds.
    from: u64,
    /// The longest.
    to: u64,
    count: u64,
}

/// Bars side by side, each as many buckets wide as the others.
#[derive(Clone, Debug, Eq, PartialEq)]
struct Chart {
    bars: Vec<Bar>,
    /// The first bucket, and how many there are.
    first: usize,
    buckets: usize,
    total: u64,
}

impl Chart {
    /// At most `most` bars over all that was counted; `None` if nothing was.
    fn of(histogram: &Histogram, most: usize) -> Option<Self> {
        let counts = histogram.counts();
        let first = counts.iter().position(|count| *count > 0)?;
        let end = counts.iter().rposition(|count| *count > 0)? + 1;
        let margin = (FEWEST_BUCKETS.saturating_sub(end - first) / 2).max(MARGIN);
        let (first, end) = (first.saturating_sub(margin), (end + margin).min(BUCKETS));
        let width = (end - first).div_ceil(most);
        let bars: Vec<Bar> = (first..end)
            .step_by(width)
            .map(|start| {
                let last = (start + width).min(BUCKETS) - 1;
                Bar {
                    from: if start == 0 { 0 } else { upper_bound(start - 1) + 1 },
                    to: upper_bound(last),
                    count: counts[start..=last].iter().fold(0, |sum, count| sum.saturating_add(*count)),
                }
            })
            .collect();
        let buckets = bars.len() * width;
        Some(Self { bars, first, buckets, total: histogram.total() })
    }

    /// Where a latency lies, in per cent from the left; `None` outside.
    fn place(&self, micros: u64) -> Option<f64> {
        let past = bucket(micros).checked_sub(self.first).filter(|past| *past < self.buckets)?;
        Some(100.0 * (past as f64 + 0.5) / self.buckets as f64)
    }

    /// Places and names of the ticks that have room for their names.
    fn ticks(&self) -> Vec<(f64, &'static str)> {
        let mut ticks: Vec<(f64, &'static str)> = Vec::new();
        for (micros, name) in TICKS {
            if let Some(place) = self.place(micros)
                && ticks.last().is_none_or(|(before, _)| place - before >= TICK_ROOM)
            {
                ticks.push((place, name));
            }
        }
        ticks
    }

    fn bars(&self) -> Markup {
        let highest = self.bars.iter().map(|bar| bar.count).max().unwrap_or(0);
        html! {
            @for bar in &self.bars {
                @if bar.count == 0 { i {} } @else {
                    i class="n" style={ "height:" (format!("{:.1}", share(bar.count, highest))) "%" }
                        title={
                            (span(bar.from)) " to " (span(bar.to)) ": " (requests(bar.count)) ", "
                            (format!("{:.1}", share(bar.count, self.total))) " %"
                        } {}
                }
            }
        }
    }
}

fn requests(count: u64) -> String {
    if count == 1 { "1 request".to_owned() } else { format!("{} requests", grouped(count)) }
}

/// A chart as wide as the page: bars, marks for median, p99 and p99.9, and times below.
#[must_use]
pub fn wide(histogram: &Histogram) -> Markup {
    let Some(chart) = Chart::of(histogram, MOST) else {
        return html! { p { "No request has been finished yet." } };
    };
    let marks =
        MARKS.map(|(per_mille, name, class)| (histogram.quantile(per_mille).unwrap_or(0), name, class));
    html! {
        div class="chart" {
            div class="bars" {
                (chart.bars())
                @for (micros, name, class) in marks {
                    @if let Some(place) = chart.place(micros) {
                        b class=(class) title={ (name) " " (span(micros)) } style={ "left:" (format!("{place:.2}")) "%" } {}
                    }
                }
            }
            div class="ticks" {
                @for (place, name) in chart.ticks() {
                    span style={ "left:" (format!("{place:.2}")) "%" } { (name) }
                }
            }
        }
        div class="legend" {
            @for (micros, name, class) in marks { div { b class=(class) {} " " (name) " " (span(micros)) } }
            div { (requests(chart.total)) }
        }
    }
}

/// A chart for a cell of a table; nothing if nothing was counted.
#[must_use]
pub fn small(histogram: &Histogram) -> Markup {
    html! { @if let Some(chart) = Chart::of(histogram, MOST_SMALL) { div class="bars small" { (chart.bars()) } } }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn histogram(latencies: &[(u64, u64)]) -> Histogram {
        let mut histogram = Histogram::default();
        for (micros, count) in latencies {
            histogram.add(bucket(*micros), *count);
        }
        histogram
    }

    #[test]
    fn nothing_has_no_bars() {
        assert_eq!(Chart::of(&Histogram::default(), 10), None);
        assert!(wide(&Histogram::default()).into_string().contains("No request"));
        assert_eq!(small(&Histogram::default()).into_string(), "");
    }

    #[test]
    fn bars_say_how_many_and_marks_stand_where_they_belong() {
        let page = wide(&histogram(&[(2_000, 90), (40_000, 9), (5_000_000, 1)])).into_string();
        for part in [
            "height:100.0%\" title=\"2.0 ms to 2.3 ms: 90 requests, 90.0 %\"",
            "height:10.0%\"",
            ": 1 request, 1.0 %\"",
            "<b class=\"p50\" title=\"median 2.0 ms\"",
            "<b class=\"p99\"></b> p99 40 ms",
            ">10 ms</span>",
            ">1 s</span>",
            "<div>100 requests</div>",
        ] {
            assert!(page.contains(part), "{part}\n{page}");
        }
        assert!(!page.contains(">100 us</span>"), "outside: {page}");
    }

    proptest! {
        #[test]
        fn every_request_is_in_one_bar(latencies in proptest::collection::vec((0..u64::MAX, 1..1000u64), 1..40), most in 8..100usize) {
            let histogram = histogram(&latencies);
            let chart = Chart::of(&histogram, most).expect("there is something");
            prop_assert!(chart.bars.len() <= most);
            prop_assert_eq!(chart.bars.iter().map(|bar| bar.count).sum::<u64>(), histogram.total());
            prop_assert!(chart.bars.windows(2).all(|two| two[0].to + 1 == two[1].from));
            for (micros, _) in &latencies {
                prop_assert!(chart.place(*micros).is_some_and(|place| (0.0..=100.0).contains(&place)));
            }
            prop_assert!(!wide(&histogram).into_string().is_empty() && !small(&histogram).into_string().is_empty());
        }
    }
}
