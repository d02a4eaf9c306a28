//! A reliability diagram: how often predictions of a confidence are right.

use plotters::{
    backend::DrawingBackend,
    element::{PathElement, Rectangle, Text},
    style::{
        Color,
        text_anchor::{HPos, VPos},
    },
};
use runner_report::Bin;

use super::{Area, BLUE, Drawn, FAINT, INK, LINE, ORANGE, PAPER, Picture, filled, mix, text, upright};

const SIDE: i32 = 460;
const LEFT: i32 = 84;
const TOP: i32 = 92;
/// Height of the histogram of confidences below.
const BELOW: i32 = 90;
const GAP: i32 = 44;
const MARGIN: i32 = 24;

/// Bins of equal width over confidences from 0 to 1.
pub(crate) struct Reliability {
    /// From the lowest confidences to the highest.
    pub(crate) bins: Vec<Bin>,
    /// Below the title.
    pub(crate) subtitle: String,
}

impl Picture for Reliability {
    fn size(&self) -> (u32, u32) {
        ((LEFT + SIDE + 2 * MARGIN) as u32, (TOP + SIDE + GAP + BELOW + 60) as u32)
    }

    fn draw<B: DrawingBackend>(&self, area: &Area<B>) -> Drawn<B> {
        area.fill(&PAPER)?;
        let heading = (HPos::Left, VPos::Top);
        area.draw(&Text::new("reliability", (MARGIN, MARGIN - 4), text(24, INK, heading)))?;
        area.draw(&Text::new(self.subtitle.clone(), (MARGIN, MARGIN + 28), text(15, FAINT, heading)))?;
        let x = |share: f64| LEFT + (share * f64::from(SIDE)).round() as i32;
        let y = |share: f64| TOP + SIDE - (share * f64::from(SIDE)).round() as i32;
        let histogram = TOP + SIDE + GAP + BELOW;
        for tick in 0..=5 {
            let share = f64::from(tick) / 5.0;
            area.draw(&PathElement::new([(x(0.0), y(share)), (x(1.0), y(share))], LINE))?;
            let label = format!("{share:.1}");
            let beside = text(14, FAINT, (HPos::Right, VPos::Center));
            area.draw(&Text::new(label.clone(), (LEFT - 8, y(share)), beside))?;
            area.draw(&Text::new(label, (x(share), histogram + 6), text(14, FAINT, (HPos::Center, VPos::Top))))?;
        }
        let most = self.bins.iter().map(|bin| bin.n).max().unwrap_or(0).max(1);
        let count = self.bins.len().max(1) as f64;
        for (i, bin) in self.bins.iter().enumerate().filter(|(_, bin)| bin.n > 0) {
            let (left, right) = (x(i as f64 / count) + 1, x((i + 1) as f64 / count) - 1);
            let accuracy = bin.right as f64 / bin.n as f64;
            area.draw(&Rectangle::new([(left, y(accuracy)), (right, y(0.0))], filled(mix(PAPER, BLUE, 0.75))))?;
            // The gap between what was said and what is.
            let (low, high) = (accuracy.min(bin.confidence), accuracy.max(bin.confidence));
            area.draw(&Rectangle::new([(left, y(high)), (right, y(low))], ORANGE.mix(0.3).filled()))?;
            area.draw(&PathElement::new([(left, y(bin.confidence)), (right, y(bin.confidence))], ORANGE))?;
            let height = (bin.n as f64 / most as f64 * f64::from(BELOW)).ceil() as i32;
            let bar = [(left, histogram - height), (right, histogram)];
            area.draw(&Rectangle::new(bar, filled(mix(PAPER, FAINT, 0.7))))?;
        }
        area.draw(&PathElement::new([(x(0.0), y(0.0)), (x(1.0), y(1.0))], FAINT))?;
        area.draw(&PathElement::new([(x(0.0), histogram), (x(1.0), histogram)], LINE))?;
        let middle = LEFT + SIDE / 2;
        let under = text(16, FAINT, (HPos::Center, VPos::Top));
        area.draw(&Text::new("confidence; below, how many", (middle, histogram + 30), under))?;
        let beside = upright(16, FAINT, (HPos::Center, VPos::Top));
        area.draw(&Text::new("accuracy", (MARGIN, TOP + SIDE / 2), beside))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_bins_can_be_drawn() {
        let bins = (0..15).map(|i| Bin { n: i * 10, right: i * 5, confidence: (i as f64 + 0.5) / 15.0 }).collect();
        for bins in [bins, vec![Bin::default(); 15], Vec::new()] {
            let picture = Reliability { bins, subtitle: "ECE 0.1".into() };
            assert!(picture.png().unwrap().len() > 100);
            assert_eq!(picture.svg().unwrap(), picture.svg().unwrap());
        }
    }
}
