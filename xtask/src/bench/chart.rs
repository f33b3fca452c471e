//! Plain charts as SVG: lines over the number of nodes, which is on a logarithmic axis, beside each other.

use std::fmt::Write as _;

/// One chart of a picture.
pub(super) struct Panel<'a> {
    pub(super) title: &'a str,
    /// How the figures were taken: below the title.
    pub(super) label: &'a str,
    /// The name and unit of the vertical axis.
    pub(super) axis: &'a str,
    pub(super) scale: Scale,
    pub(super) lines: Vec<Line<'a>>,
    /// Bounds to draw, and what to call them.
    pub(super) bounds: Vec<(f64, &'a str)>,
}

/// One line of a chart.
pub(super) struct Line<'a> {
    /// Written at its end; may be empty where there is but one.
    pub(super) name: &'a str,
    /// Nodes and what was measured.
    pub(super) points: Vec<(f64, f64)>,
}

/// How values become heights.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Scale {
    /// From nothing on.
    Linear,
    /// Tenfold is as far everywhere: for values that differ by orders of magnitude.
    Logarithmic,
}

const WIDTH: f64 = 440.0;
const HEIGHT: f64 = 320.0;
const LEFT: f64 = 64.0;
const TOP: f64 = 64.0;
const BOTTOM: f64 = 56.0;
const RIGHT: f64 = 28.0;
/// Below the panels, for the caption.
const FOOT: f64 = 28.0;
/// Colours that people with any colour vision tell apart, and that print.
const COLOURS: [&str; 3] = ["#0b62a8", "#c25b00", "#3c7a3c"];
/// How far above or below its point a figure stands.
const ABOVE: f64 = 9.0;
/// See [`ABOVE`]; text hangs from its foot.
const BELOW: f64 = 18.0;
/// Room above the highest point, so that its figure does not touch the frame.
const HEADROOM: f64 = 1.12;

/// The panels beside each other, with a title above and a caption below.
pub(super) fn svg(title: &str, panels: &[Panel<'_>], caption: &str) -> String {
    let count = panels.iter().map(|_| 1.0).sum::<f64>();
    let head = 34.0;
    let (width, height) = (WIDTH * count, head + HEIGHT + FOOT);
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" width=\"{width}\" height=\"{height}\" \
         font-family=\"Helvetica, Arial, sans-serif\" font-size=\"12\" fill=\"#222\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n\
         <text x=\"{LEFT}\" y=\"28\" font-size=\"18\" font-weight=\"bold\">{title}</text>\n"
    );
    let mut offset = 0.0;
    for panel in panels {
        // Writing to a string cannot fail.
        let _ = writeln!(out, "<g transform=\"translate({offset} {head})\">\n{}</g>", draw(panel));
        offset += WIDTH;
    }
    let _ = writeln!(out, "<text x=\"{LEFT}\" y=\"{}\" fill=\"#555\">{caption}</text>\n</svg>", height - 10.0);
    out
}

/// Where things are on a panel.
struct Place {
    last: f64,
    low: f64,
    high: f64,
    scale: Scale,
}

impl Place {
    fn of(panel: &Panel<'_>) -> Self {
        let points = || panel.lines.iter().flat_map(|line| &line.points);
        let last = points().map(|point| point.0).fold(10.0, f64::max);
        let values = || points().map(|point| point.1).chain(panel.bounds.iter().map(|bound| bound.0));
        let most = values().fold(1.0, f64::max);
        let (low, high) = match panel.scale {
            Scale::Linear => (0.0, most * HEADROOM),
            Scale::Logarithmic => {
                let least = values().fold(most, f64::min).max(f64::MIN_POSITIVE);
                (10_f64.powf(least.log10().floor()), most * HEADROOM * HEADROOM)
            }
        };
        Self { last, low, high, scale: panel.scale }
    }

    fn x(&self, nodes: f64) -> f64 {
        LEFT + nodes.max(1.0).log10() / self.last.log10() * (WIDTH - LEFT - RIGHT)
    }

    fn y(&self, value: f64) -> f64 {
        let part = match self.scale {
            Scale::Linear => (value - self.low) / (self.high - self.low),
            Scale::Logarithmic => (value / self.low).log10() / (self.high / self.low).log10(),
        };
        let tall = HEIGHT - TOP - BOTTOM;
        TOP + tall - part * tall
    }

    /// Round values at which the vertical axis is marked.
    fn ticks(&self) -> Vec<f64> {
        match self.scale {
            Scale::Logarithmic => {
                let from = self.low;
                let decades = std::iter::successors(Some(from), |tick| Some(tick * 10.0));
                decades.take_while(|tick| *tick <= self.high).collect()
            }
            Scale::Linear => {
                // Some five steps of 1, 2 or 5 times a power of ten.
                let rough = self.high / 5.0;
                let power = 10_f64.powf(rough.log10().floor());
                let step = [1.0, 2.0, 5.0, 10.0].map(|times| times * power);
                let step = step.into_iter().find(|step| *step >= rough).unwrap_or(rough);
                let all = std::iter::successors(Some(0.0), |tick| Some(tick + step));
                all.take_while(|tick| *tick <= self.high).collect()
            }
        }
    }
}

fn shown(value: f64) -> String {
    let digits = if value < 100.0 && value.fract() != 0.0 { 1 } else { 0 };
    let plain = format!("{value:.digits$}");
    match plain.strip_suffix("000") {
        Some(thousands) if !thousands.is_empty() => format!("{thousands},000"),
        _ => plain,
    }
}

fn draw(panel: &Panel<'_>) -> String {
    let place = Place::of(panel);
    let (right, base) = (WIDTH - RIGHT, HEIGHT - BOTTOM);
    let mut out = format!(
        "<text x=\"{LEFT}\" y=\"26\" font-size=\"14\" font-weight=\"bold\">{}</text>\n\
         <text x=\"{LEFT}\" y=\"43\" fill=\"#555\">{}</text>\n",
        panel.title, panel.label
    );
    for tick in place.ticks() {
        let y = place.y(tick);
        let _ = writeln!(out, "<path d=\"M{LEFT} {y:.1}H{right}\" stroke=\"#e4e4e4\"/>");
        let (x, y) = (LEFT - 8.0, y + 4.0);
        let _ = writeln!(out, "<text x=\"{x}\" y=\"{y:.1}\" text-anchor=\"end\" fill=\"#555\">{}</text>", shown(tick));
    }
    let _ = writeln!(out, "<path d=\"M{LEFT} {TOP}V{base}H{right}\" fill=\"none\" stroke=\"#333\"/>");
    let middle = (LEFT + right) / 2.0;
    let _ =
        writeln!(out, "<text x=\"{middle}\" y=\"{}\" text-anchor=\"middle\">nodes (logarithmic)</text>", HEIGHT - 14.0);
    let _ = writeln!(
        out,
        "<text transform=\"translate(16 {}) rotate(-90)\" text-anchor=\"middle\">{}</text>",
        (TOP + base) / 2.0,
        panel.axis
    );
    for (bound, name) in &panel.bounds {
        let y = place.y(*bound);
        let _ = writeln!(
            out,
            "<path d=\"M{LEFT} {y:.1}H{right}\" stroke=\"#b3261e\" stroke-dasharray=\"5 4\" fill=\"none\"/>"
        );
        let (x, y) = (LEFT + 6.0, y - 5.0);
        let _ = writeln!(out, "<text x=\"{x}\" y=\"{y:.1}\" fill=\"#b3261e\">{name}</text>");
    }
    let mut marks: Vec<f64> = panel.lines.iter().flat_map(|line| line.points.iter().map(|point| point.0)).collect();
    marks.sort_by(f64::total_cmp);
    marks.dedup();
    for nodes in marks {
        let x = place.x(nodes);
        let _ = writeln!(out, "<path d=\"M{x:.1} {base}v5\" stroke=\"#333\"/>");
        let y = base + 19.0;
        let _ =
            writeln!(out, "<text x=\"{x:.1}\" y=\"{y}\" text-anchor=\"middle\" fill=\"#555\">{}</text>", shown(nodes));
    }
    for (line, colour) in panel.lines.iter().zip(COLOURS.iter().cycle()) {
        out.push_str(&curve(line, colour, &place, &panel.bounds));
    }
    out
}

fn curve(line: &Line<'_>, colour: &str, place: &Place, bounds: &[(f64, &str)]) -> String {
    let at: Vec<String> =
        line.points.iter().map(|(nodes, value)| format!("{:.1} {:.1}", place.x(*nodes), place.y(*value))).collect();
    let mut out = format!("<path d=\"M{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"/>\n", at.join("L"));
    for (index, (nodes, value)) in line.points.iter().enumerate() {
        let (x, y) = (place.x(*nodes), place.y(*value));
        let _ = writeln!(out, "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3.5\" fill=\"{colour}\"/>");
        let name = if index + 1 == line.points.len() && !line.name.is_empty() { line.name } else { "" };
        // At the edges a figure in the middle would lie on the axis or outside.
        let (anchor, x) = match (x <= LEFT + 1.0, x >= WIDTH - RIGHT - 1.0) {
            (true, _) => ("start", x + 5.0),
            (_, true) => ("end", x + 6.0),
            _ => ("middle", x),
        };
        // A figure stands above its point, unless a bound and its name are there.
        let is_taken = bounds.iter().any(|(bound, _)| (y - 2.0 * ABOVE..=y + ABOVE / 2.0).contains(&place.y(*bound)));
        let up = if is_taken { -BELOW } else { ABOVE };
        let text = format!("{name} {}", shown(*value));
        let _ = writeln!(
            out,
            "<text x=\"{x:.1}\" y=\"{:.1}\" text-anchor=\"{anchor}\" font-weight=\"bold\" fill=\"{colour}\">{}</text>",
            y - up,
            text.trim()
        );
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn panel(scale: Scale, points: &[(f64, f64)]) -> Panel<'static> {
        Panel {
            title: "requests",
            label: "simulated",
            axis: "requests",
            scale,
            lines: vec![Line { name: "leader", points: points.to_vec() }],
            bounds: vec![(250.0, "goal")],
        }
    }

    fn heights(text: &str) -> Vec<f64> {
        text.split("cy=\"").skip(1).filter_map(|rest| rest.split('"').next()?.parse().ok()).collect()
    }

    #[test]
    fn every_point_is_named_and_higher_values_are_higher_up() {
        for scale in [Scale::Linear, Scale::Logarithmic] {
            let text = svg("figures", &[panel(scale, &[(1.0, 5.5), (10.0, 20.0), (5000.0, 200.0)])], "two processors");
            for word in
                [">figures<", ">requests<", ">goal<", ">5.5<", ">20<", ">leader 200<", ">5,000<", ">two processors<"]
            {
                assert!(text.contains(word), "{word}: {text}");
            }
            let heights = heights(&text);
            assert!(heights[0] > heights[1] && heights[1] > heights[2], "{heights:?}");
            assert!(heights.iter().all(|y| (TOP..HEIGHT - BOTTOM).contains(y)), "inside the frame: {heights:?}");
        }
    }

    #[test]
    fn figures_keep_clear_of_a_bound_and_its_name() {
        let at = |value: f64| {
            let text = svg("", &[panel(Scale::Linear, &[(10.0, value)])], "");
            let figure = text.lines().find(|line| line.contains(&format!(">leader {value}<"))).expect("a figure");
            let y = figure.split("y=\"").nth(1).and_then(|rest| rest.split('"').next()?.parse::<f64>().ok());
            y.expect("it is somewhere") - heights(&text)[0]
        };
        assert!(at(100.0) < 0.0, "above");
        assert!(at(245.0) > 0.0, "the bound is above");
    }

    #[test]
    fn axes_are_marked_at_round_values() {
        assert_eq!(Place::of(&panel(Scale::Linear, &[(1.0, 5.0)])).ticks(), [0.0, 100.0, 200.0]);
        assert_eq!(Place::of(&panel(Scale::Logarithmic, &[(1.0, 5.0)])).ticks(), [1.0, 10.0, 100.0]);
    }
}
