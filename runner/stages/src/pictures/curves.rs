//! Curves over steps: loss, accuracy.

use plotters::{
    backend::DrawingBackend,
    chart::ChartBuilder,
    element::{Circle, PathElement, Text},
    series::LineSeries,
    style::{
        Color, RGBColor, ShapeStyle,
        text_anchor::{HPos, VPos},
    },
};

use super::{Area, BLUE, Drawn, FAINT, INK, LINE, ORANGE, PAPER, Picture, text, text_width};

const SIZE: (u32, u32) = (1000, 560);
const MARGIN: i32 = 24;

/// One curve.
pub(crate) struct Series {
    /// What the legend calls it.
    pub(crate) name: String,
    /// Step and value, by step.
    pub(crate) points: Vec<(u64, f64)>,
    /// Also draw the points: for few values far apart.
    pub(crate) dots: bool,
}

/// Curves over the same steps.
pub(crate) struct Chart {
    /// The heading.
    pub(crate) title: String,
    /// Below it.
    pub(crate) subtitle: String,
    /// The curves.
    pub(crate) series: Vec<Series>,
    /// The range of values, where it is fixed; otherwise from the data.
    pub(crate) range: Option<(f64, f64)>,
}

impl Chart {
    fn finite(&self) -> impl Iterator<Item = (u64, f64)> + '_ {
        self.series.iter().flat_map(|series| &series.points).copied().filter(|(_, value)| value.is_finite())
    }

    /// The range of values drawn, with a little room.
    fn values(&self) -> (f64, f64) {
        if let Some(range) = self.range {
            return range;
        }
        let (low, high) = self
            .finite()
            .fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), (_, value)| (low.min(value), high.max(value)));
        let room = ((high - low) * 0.05).max(1e-6);
        if low <= high { (low - room, high + room) } else { (0.0, 1.0) }
    }
}

/// Averages neighbouring points so that a curve of many noisy steps can be read: at most `most` points.
pub(crate) fn thinned(points: &[(u64, f64)], most: usize) -> Vec<(u64, f64)> {
    let size = points.len().div_ceil(most.max(1)).max(1);
    points
        .chunks(size)
        .filter_map(|chunk| {
            let mean = chunk.iter().map(|(_, value)| value).sum::<f64>() / chunk.len() as f64;
            chunk.last().map(|&(step, _)| (step, mean))
        })
        .collect()
}

impl Picture for Chart {
    fn size(&self) -> (u32, u32) {
        SIZE
    }

    fn draw<B: DrawingBackend>(&self, area: &Area<B>) -> Drawn<B> {
        area.fill(&PAPER)?;
        let heading = (HPos::Left, VPos::Top);
        area.draw(&Text::new(self.title.clone(), (MARGIN, MARGIN - 4), text(24, INK, heading)))?;
        area.draw(&Text::new(self.subtitle.clone(), (MARGIN, MARGIN + 28), text(15, FAINT, heading)))?;
        let last = self.finite().map(|(step, _)| step).max().unwrap_or(0).max(1);
        let (low, high) = self.values();
        let below = area.margin(78, MARGIN, MARGIN, MARGIN + 16);
        let mut chart = ChartBuilder::on(&below)
            .x_label_area_size(44)
            .y_label_area_size(64)
            .build_cartesian_2d(0u64..last, low..high)?;
        let label = text(15, FAINT, (HPos::Center, VPos::Center));
        chart
            .configure_mesh()
            .x_labels(9)
            .y_labels(7)
            .x_desc("step")
            .label_style(text(14, FAINT, (HPos::Center, VPos::Center)))
            .axis_desc_style(label)
            .axis_style(LINE)
            .bold_line_style(LINE)
            .light_line_style(PAPER)
            .y_label_formatter(&|value| short(*value, high - low))
            .draw()?;
        let colors = [BLUE, ORANGE, RGBColor(80, 130, 60), RGBColor(120, 80, 150)];
        for (series, color) in self.series.iter().zip(colors.iter().cycle()) {
            let points = || series.points.iter().copied().filter(|(_, value)| value.is_finite());
            chart.draw_series(LineSeries::new(points(), ShapeStyle::from(color).stroke_width(2)))?;
            if series.dots {
                chart.draw_series(points().map(|point| Circle::new(point, 3, color.filled())))?;
            }
        }
        self.legend(area, &colors)
    }
}

impl Chart {
    /// Names beside strokes of their colour, at the top right.
    fn legend<B: DrawingBackend>(&self, area: &Area<B>, colors: &[RGBColor]) -> Drawn<B> {
        let mut right = SIZE.0 as i32 - MARGIN - 16;
        let entries: Vec<_> = self.series.iter().zip(colors.iter().cycle()).collect();
        for (series, color) in entries.into_iter().rev() {
            let width = text_width(&series.name, 15) as i32;
            let y = MARGIN + 36;
            area.draw(&Text::new(series.name.clone(), (right - width, y), text(15, INK, (HPos::Left, VPos::Center))))?;
            let stroke = [(right - width - 34, y), (right - width - 10, y)];
            area.draw(&PathElement::new(stroke, ShapeStyle::from(color).stroke_width(3)))?;
            right -= width + 60;
        }
        Ok(())
    }
}

/// A value for an axis whose values span `span`: as many places as tell neighbours apart.
fn short(value: f64, span: f64) -> String {
    let places = if span >= 50.0 {
        0
    } else if span >= 5.0 {
        1
    } else if span >= 0.3 {
        2
    } else {
        3
    };
    format!("{value:.places$}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thinning_averages_and_keeps_the_last_step() {
        let points: Vec<_> = (1..=10).map(|i| (i, i as f64)).collect();
        assert_eq!(thinned(&points, 5), [(2, 1.5), (4, 3.5), (6, 5.5), (8, 7.5), (10, 9.5)]);
        assert_eq!(thinned(&points, 100), points);
        assert!(thinned(&[], 5).is_empty());
    }

    #[test]
    fn curves_without_points_or_with_infinite_ones_can_be_drawn() {
        for points in [vec![], vec![(1, f64::NAN)], vec![(3, 1.0)], vec![(1, 2.0), (2, 2.0)]] {
            let series = vec![Series { name: "loss".into(), points, dots: true }];
            let chart = Chart { title: "loss".into(), subtitle: String::new(), series, range: None };
            assert!(chart.png().unwrap().len() > 100);
        }
    }
}
