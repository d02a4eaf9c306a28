//! A confusion matrix: true classes down, predictions across.

use plotters::{
    backend::DrawingBackend,
    element::{PathElement, Rectangle, Text},
    style::text_anchor::{HPos, VPos},
};

use super::{
    Area, BLUE, Drawn, FAINT, INK, LINE, ORANGE, PAPER, Picture, filled, fitted, mix, text, text_width, upright,
};

/// Above this many classes cells hold no numbers and labels are thinned out.
const NUMBERED: usize = 24;
/// Room for labels at the left and below, in pixels.
const LABELS: (u32, u32) = (40, 200);

/// What a confusion matrix shows.
pub(crate) struct Confusion {
    /// Class names, in the order of rows and columns.
    pub(crate) names: Vec<String>,
    /// `[true][predicted]`, one row a class.
    pub(crate) counts: Vec<Vec<u64>>,
    /// Below the title: `top-1 97.8 %, n = 10,000`.
    pub(crate) subtitle: String,
}

/// Where things are, in pixels.
struct Layout {
    cell: u32,
    left: u32,
    top: u32,
    /// From the cells down to the word `predicted`.
    below: u32,
    font: u32,
    /// The names of columns are read from left to right.
    lying: bool,
}

const TITLE: u32 = 26;
const MARGIN: u32 = 24;

impl Confusion {
    fn layout(&self) -> Layout {
        let n = self.names.len().max(1) as u32;
        let cell = (900 / n).clamp(2, 76);
        let font = (cell / 3).clamp(13, 19);
        let widest = self.names.iter().map(|name| text_width(name, font)).max().unwrap_or(0);
        let labels = widest.clamp(LABELS.0, LABELS.1);
        // Names below the columns lie where they fit into a cell, and stand where they do not.
        let below = if widest + 6 <= cell { font + 20 } else { labels + 20 };
        Layout { cell, left: MARGIN + 34 + labels + 10, top: MARGIN + 78, below, font, lying: widest + 6 <= cell }
    }

    /// The colour of a cell: blue on the diagonal, orange elsewhere, by the share of the row. The square root makes rare mistakes visible.
    fn color(&self, row: usize, column: usize) -> plotters::style::RGBColor {
        let total: u64 = self.counts[row].iter().sum();
        let share = self.counts[row][column] as f64 / total.max(1) as f64;
        if row == column { mix(PAPER, BLUE, share) } else { mix(PAPER, ORANGE, 0.12 + 0.88 * share.sqrt()) }
    }
}

impl Picture for Confusion {
    fn size(&self) -> (u32, u32) {
        let Layout { cell, left, top, below, .. } = self.layout();
        let side = cell * self.names.len() as u32;
        ((left + side + MARGIN).max(480), top + side + below + 20 + MARGIN)
    }

    fn draw<B: DrawingBackend>(&self, area: &Area<B>) -> Drawn<B> {
        let Layout { cell, left, top, font, below, lying } = self.layout();
        let n = self.names.len();
        let side = cell * n as u32;
        let (left, top, cell, side) = (left as i32, top as i32, cell as i32, side as i32);
        area.fill(&PAPER)?;
        let heading = (HPos::Left, VPos::Top);
        area.draw(&Text::new("confusion matrix", (MARGIN as i32, MARGIN as i32), text(TITLE, INK, heading)))?;
        area.draw(&Text::new(self.subtitle.clone(), (MARGIN as i32, MARGIN as i32 + 36), text(16, FAINT, heading)))?;
        let numbered = n <= NUMBERED;
        for row in 0..n {
            for column in 0..n {
                let count = self.counts[row][column];
                let (x, y) = (left + column as i32 * cell, top + row as i32 * cell);
                let color = self.color(row, column);
                if count > 0 {
                    let gap = i32::from(numbered);
                    area.draw(&Rectangle::new([(x + gap, y + gap), (x + cell - gap, y + cell - gap)], filled(color)))?;
                }
                if numbered && count > 0 {
                    let light = u32::from(color.0) + u32::from(color.1) + u32::from(color.2) > 440;
                    let style = text(font.min(17), if light { INK } else { PAPER }, (HPos::Center, VPos::Center));
                    area.draw(&Text::new(count.to_string(), (x + cell / 2, y + cell / 2), style))?;
                }
            }
        }
        if numbered {
            for i in 0..=n as i32 {
                let at = i * cell;
                area.draw(&PathElement::new([(left, top + at), (left + side, top + at)], LINE))?;
                area.draw(&PathElement::new([(left + at, top), (left + at, top + side)], LINE))?;
            }
        } else {
            let frame = [(left, top), (left + side, top), (left + side, top + side), (left, top + side), (left, top)];
            area.draw(&PathElement::new(frame, LINE))?;
        }
        // Labels one under the other need their own height each.
        let every = (font as usize + 4).div_ceil(cell as usize).max(1);
        for (i, name) in self.names.iter().enumerate().step_by(every) {
            let name = fitted(name, font, LABELS.1);
            let middle = i as i32 * cell + cell / 2;
            let beside = text(font, INK, (HPos::Right, VPos::Center));
            area.draw(&Text::new(name.clone(), (left - 10, top + middle), beside))?;
            if lying {
                let below = text(font, INK, (HPos::Center, VPos::Top));
                area.draw(&Text::new(name, (left + middle, top + side + 8), below))?;
            } else {
                let below = upright(font, INK, (HPos::Right, VPos::Center));
                area.draw(&Text::new(name, (left + middle, top + side + 8), below))?;
            }
        }
        let below = top + side + below as i32;
        area.draw(&Text::new("predicted", (left + side / 2, below), text(16, FAINT, (HPos::Center, VPos::Top))))?;
        let beside = upright(16, FAINT, (HPos::Center, VPos::Top));
        area.draw(&Text::new("true", (MARGIN as i32, top + side / 2), beside))
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn digits() -> Confusion {
        let n = 10;
        let counts = (0..n)
            .map(|row| {
                (0..n).map(|column| if row == column { 980 - 3 * row } else { (row * 7 + column * 3) % 5 }).collect()
            })
            .collect();
        Confusion {
            names: (0..n).map(|digit| digit.to_string()).collect(),
            counts,
            subtitle: "top-1 97.8 %, n = 10,000".into(),
        }
    }

    #[test]
    fn equal_counts_give_equal_bytes() {
        assert_eq!(digits().png().unwrap(), digits().png().unwrap());
        assert!(String::from_utf8(digits().svg().unwrap()).unwrap().contains("predicted"));
    }

    #[test]
    fn any_number_of_classes_can_be_drawn() {
        for n in [1, 2, 300] {
            let names = (0..n).map(|i| format!("a class of number {i}")).collect();
            let picture = Confusion { names, counts: vec![vec![1; n]; n], subtitle: String::new() };
            assert!(picture.png().unwrap().len() > 100);
        }
    }
}
