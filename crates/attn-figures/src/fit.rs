//! A straight line through points.

/// `intercept + slope * x`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Line {
    pub(crate) intercept: f64,
    pub(crate) slope: f64,
    /// Share of the variance that the line explains.
    pub(crate) r_squared: f64,
}

impl Line {
    /// Of least squares. Two points always lie on one, so that it takes three, at two places at least.
    pub(crate) fn through(points: &[(f64, f64)]) -> Option<Self> {
        if points.len() < 3 {
            return None;
        }
        let n = points.len() as f64;
        let mean = |of: fn(&(f64, f64)) -> f64| points.iter().map(of).sum::<f64>() / n;
        let (mean_x, mean_y) = (mean(|point| point.0), mean(|point| point.1));
        let sum = |of: &dyn Fn(f64, f64) -> f64| -> f64 { points.iter().map(|(x, y)| of(*x, *y)).sum() };
        let spread = sum(&|x, _| (x - mean_x).powi(2));
        if spread <= f64::EPSILON * mean_x.powi(2) * n {
            return None;
        }
        let slope = sum(&|x, y| (x - mean_x) * (y - mean_y)) / spread;
        let intercept = mean_y - slope * mean_x;
        let unexplained = sum(&|x, y| (y - intercept - slope * x).powi(2));
        let all = sum(&|_, y| (y - mean_y).powi(2));
        Some(Self {
            intercept,
            slope,
            // Points on a level line leave nothing to explain.
            r_squared: if all > 0.0 { 1.0 - unexplained / all } else { 1.0 },
        })
    }

    pub(crate) fn at(&self, x: f64) -> f64 {
        self.intercept + self.slope * x
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::paper;

    #[test]
    fn a_line_is_found_again() {
        let line = Line::through(&[(1.0, 5.0), (2.0, 7.0), (4.0, 11.0)]).unwrap();
        assert!((line.intercept - 3.0).abs() < 1e-12 && (line.slope - 2.0).abs() < 1e-12);
        assert!((line.r_squared - 1.0).abs() < 1e-12 && (line.at(10.0) - 23.0).abs() < 1e-12);
    }

    #[test]
    fn scatter_lowers_r_squared() {
        // Slope 1, intercept 2/3 and R^2 3/4, by hand.
        let line = Line::through(&[(0.0, 1.0), (1.0, 1.0), (2.0, 3.0)]).unwrap();
        assert!((line.intercept - 2.0 / 3.0).abs() < 1e-12 && (line.slope - 1.0).abs() < 1e-12);
        assert!((line.r_squared - 0.75).abs() < 1e-12);
    }

    #[test]
    fn too_few_points_or_places_have_no_line() {
        assert_eq!(Line::through(&[(1.0, 1.0), (2.0, 2.0)]), None);
        assert_eq!(Line::through(&[(144.0, 1.0), (144.0, 2.0), (144.0, 3.0)]), None);
    }

    #[test]
    fn the_papers_memory_is_its_cache_and_a_constant() {
        let printed = paper::published().unwrap();
        let rows = printed.iter().filter(|row| row.task == "st" && !row.is_flash);
        let points: Vec<(f64, f64)> = rows
            .filter_map(|row| Some((row.cache_elements?, row.memory_mib)))
            .collect();
        let line = Line::through(&points).unwrap();
        assert_eq!(points.len(), 7);
        assert!(
            (line.intercept - 532.0).abs() < 1.0 && (line.slope - 17.62).abs() < 0.01,
            "{line:?}"
        );
        assert!((line.r_squared - 0.9975).abs() < 1e-4, "{line:?}");
    }

    #[test]
    fn the_papers_latent_rows_lie_on_a_line_and_the_others_above_it() {
        let printed = paper::published().unwrap();
        let of = |variants: &'static [&str]| {
            let rows = printed
                .iter()
                .filter(|row| row.task == "st" && !row.is_flash && variants.contains(&row.variant.as_str()));
            let point = |row: &paper::Published| Some((row.cache_elements?, row.time_s));
            rows.filter_map(point).collect::<Vec<_>>()
        };
        let line = Line::through(&of(&["mla", "mtla"])).unwrap();
        assert!(
            (line.intercept - 32.1).abs() < 0.1 && (line.slope - 0.226).abs() < 0.001,
            "{line:?}"
        );
        let times_above = |variant: &'static [&str]| of(variant)[0].1 / line.at(of(variant)[0].0);
        assert!((times_above(&["mha"]) - 1.07).abs() < 0.01);
        assert!((times_above(&["gqa"]) - 2.12).abs() < 0.01);
        assert!((times_above(&["mqa"]) - 2.75).abs() < 0.01);
    }
}
