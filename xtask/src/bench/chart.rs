//! A plain chart as SVG: one line over the number of nodes, on logarithmic or linear paper.

use std::fmt::Write as _;

/// One chart of a picture.
pub(super) struct Panel<'a> {
    pub(super) title: &'a str,
    /// Nodes and what was measured.
    pub(super) points: &'a [(f64, f64)],
    /// A bound to draw, and what to call it.
    pub(super) bound: Option<(f64, &'a str)>,
}

const WIDTH: f64 = 420.0;
const HEIGHT: f64 = 260.0;
const LEFT: f64 = 56.0;
const TOP: f64 = 44.0;
const BOTTOM: f64 = 48.0;
const RIGHT: f64 = 24.0;

/// The panels beside each other.
pub(super) fn svg(panels: &[Panel<'_>], caption: &str) -> String {
    let count = panels.iter().map(|_| 1.0).sum::<f64>();
    let (width, height) = (WIDTH * count, HEIGHT + 24.0);
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" width=\"{width}\" height=\"{height}\" \
         font-family=\"sans-serif\" font-size=\"12\">\n<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n"
    );
    let mut offset = 0.0;
    for panel in panels {
        // Writing to a string cannot fail.
        let _ = writeln!(out, "<g transform=\"translate({offset} 0)\">\n{}</g>", draw(panel));
        offset += WIDTH;
    }
    let _ = writeln!(out, "<text x=\"{LEFT}\" y=\"{}\" fill=\"#555\">{caption}</text>\n</svg>", HEIGHT + 12.0);
    out
}

fn draw(panel: &Panel<'_>) -> String {
    let most =
        panel.points.iter().map(|point| point.1).chain(panel.bound.map(|bound| bound.0)).fold(1.0, f64::max) * 1.1;
    let last = panel.points.iter().map(|point| point.0).fold(10.0, f64::max);
    let (inner, tall) = (WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM);
    let x = |nodes: f64| LEFT + nodes.max(1.0).log10() / last.log10() * inner;
    let y = |value: f64| TOP + tall - value / most * tall;
    let mut out = format!("<text x=\"{LEFT}\" y=\"22\" font-size=\"14\">{}</text>\n", panel.title);
    let (right, base) = (LEFT + inner, TOP + tall);
    let _ = writeln!(out, "<path d=\"M{LEFT} {TOP}V{base}H{right}\" fill=\"none\" stroke=\"#333\"/>");
    let _ =
        writeln!(out, "<text x=\"{}\" y=\"{}\" text-anchor=\"middle\">nodes</text>", LEFT + inner / 2.0, HEIGHT - 8.0);
    if let Some((bound, name)) = panel.bound {
        let at = y(bound);
        let _ = writeln!(out, "<path d=\"M{LEFT} {at:.1}H{right}\" stroke=\"#b00\" stroke-dasharray=\"4 3\"/>");
        let _ =
            writeln!(out, "<text x=\"{right}\" y=\"{:.1}\" text-anchor=\"end\" fill=\"#b00\">{name}</text>", at - 4.0);
    }
    let path: Vec<String> =
        panel.points.iter().map(|(nodes, value)| format!("{:.1} {:.1}", x(*nodes), y(*value))).collect();
    let _ = writeln!(out, "<path d=\"M{}\" fill=\"none\" stroke=\"#06c\" stroke-width=\"2\"/>", path.join("L"));
    for (nodes, value) in panel.points {
        let (at, up) = (x(*nodes), y(*value));
        let digits = if *value < 10.0 { 1 } else { 0 };
        let _ = writeln!(out, "<circle cx=\"{at:.1}\" cy=\"{up:.1}\" r=\"3\" fill=\"#06c\"/>");
        let _ =
            writeln!(out, "<text x=\"{at:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{value:.digits$}</text>", up - 8.0);
        let _ = writeln!(out, "<text x=\"{at:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{nodes}</text>", base + 16.0);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_point_is_named_and_higher_values_are_higher_up() {
        let points = [(1.0, 5.0), (10.0, 20.0)];
        let text = svg(&[Panel { title: "requests", points: &points, bound: Some((250.0, "goal")) }], "simulated");
        assert_eq!(text.matches("<circle").count(), 2);
        for word in ["requests", ">goal<", ">5.0<", ">20<", ">simulated<"] {
            assert!(text.contains(word), "{word}: {text}");
        }
        let heights: Vec<f64> =
            text.split("cy=\"").skip(1).filter_map(|rest| rest.split('"').next()?.parse().ok()).collect();
        assert!(heights[1] < heights[0], "{heights:?}");
    }
}
