//! What one subscriber got, held against what it had to get. The demo's verdict comes from here.

use levada_rig::{
    arrivals::{Rising, Seen},
    latencies::Latencies,
};
use serde::Serialize;
use serde_json::Value;

use crate::model::{Order, STEPS, Who};

/// The account of one subscriber.
#[derive(Debug)]
pub(crate) struct Account {
    who: Who,
    /// Which steps of which orders came, see [`number`].
    seen: Seen,
    /// The steps of each order, in the order in which they came.
    steps: Vec<Rising>,
    /// Orders of which a step came too late.
    disordered: Seen,
    pub(crate) received: u64,
    twice: u64,
    unexpected: u64,
    /// Events that showed too much or too little.
    misshapen: u64,
    pub(crate) latencies: Latencies,
    first_us: Option<u64>,
    last_us: u64,
}

/// A line of the demo's table.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Line {
    pub(crate) subscriber: &'static str,
    pub(crate) expected: u64,
    pub(crate) received: u64,
    /// Orders of which anything was expected.
    pub(crate) orders: u64,
    /// Those whose events came in order.
    pub(crate) in_order: u64,
    pub(crate) lost: u64,
    pub(crate) twice: u64,
    pub(crate) unexpected: u64,
    pub(crate) misshapen: u64,
    pub(crate) p50_us: Option<f64>,
    pub(crate) p99_us: Option<f64>,
    pub(crate) events_per_second: f64,
    pub(crate) correct: bool,
}

impl Account {
    /// Of so many orders nothing has come yet.
    pub(crate) fn new(who: Who, orders: u32) -> Self {
        Self {
            who,
            seen: Seen::default(),
            steps: vec![Rising::default(); orders as usize],
            disordered: Seen::default(),
            received: 0,
            twice: 0,
            unexpected: 0,
            misshapen: 0,
            latencies: Latencies::default(),
            first_us: None,
            last_us: 0,
        }
    }

    /// Enters an event that came at `now_us`; returns its order and step if it has them.
    pub(crate) fn enter(&mut self, event: &Value, now_us: u64) -> Option<(Order, u8)> {
        self.received += 1;
        self.first_us.get_or_insert(now_us);
        self.last_us = now_us;
        let Some((order, step)) = order_and_step(event) else {
            self.unexpected += 1;
            return None;
        };
        let fields = event.as_object().map(|fields| fields.keys().map(String::as_str).collect::<Vec<_>>());
        if fields.as_deref() != Some(self.who.sees()) {
            self.misshapen += 1;
        }
        let Some(steps) = self.steps.get_mut(order.0 as usize) else {
            self.unexpected += 1;
            return None;
        };
        if self.seen.mark(number(order, step)) {
            self.twice += 1;
        } else {
            self.unexpected += u64::from(!self.who.expects(order, step));
            if steps.is_late(step.into()) {
                self.disordered.mark(order.0.into());
            }
        }
        Some((order, step))
    }

    /// The line of the table.
    pub(crate) fn line(&self) -> Line {
        let (mut expected, mut lost, mut orders, mut in_order) = (0, 0, 0, 0);
        for order in (0..self.steps.len()).filter_map(|order| u32::try_from(order).ok().map(Order)) {
            let wanted = (1..=STEPS.len() as u8).filter(|step| self.who.expects(order, *step));
            let (mut all, mut missing) = (0, 0);
            for step in wanted {
                all += 1;
                missing += u64::from(!self.seen.has(number(order, step)));
            }
            expected += all;
            lost += missing;
            orders += u64::from(all > 0);
            in_order += u64::from(all > 0 && !self.disordered.has(order.0.into()));
        }
        let latencies = self.latencies.percentiles();
        let flawless = lost + self.twice + self.unexpected + self.misshapen == 0;
        #[expect(clippy::cast_precision_loss, reason = "a rate for people")]
        let rate = self.received as f64 * 1e6 / (self.last_us - self.first_us.unwrap_or(0)).max(1) as f64;
        Line {
            subscriber: self.who.name(),
            expected,
            received: self.received,
            orders,
            in_order,
            lost,
            twice: self.twice,
            unexpected: self.unexpected,
            misshapen: self.misshapen,
            p50_us: latencies.map(|found| found.p50),
            p99_us: latencies.map(|found| found.p99),
            events_per_second: rate,
            correct: flawless && in_order == orders,
        }
    }
}

/// The number of an order's step among all.
fn number(order: Order, step: u8) -> u64 {
    u64::from(order.0) * STEPS.len() as u64 + u64::from(step) - 1
}

fn order_and_step(event: &Value) -> Option<(Order, u8)> {
    let order = Order::of_id(event.get("order")?.as_str()?)?;
    let step = u8::try_from(event.get("step")?.as_u64()?).ok()?;
    (1..=STEPS.len()).contains(&usize::from(step)).then_some((order, step))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ORDERS: u32 = 20;

    /// What inventory would see.
    fn seen(order: u32, step: u8) -> Value {
        let mut event = Order(order).event(step);
        event.as_object_mut().unwrap().retain(|field, _| Who::Inventory.sees().contains(&field.as_str()));
        event
    }

    fn full() -> Vec<(u32, u8)> {
        let all = (1..=5).flat_map(|step| (0..ORDERS).map(move |order| (order, step)));
        all.filter(|(order, step)| Who::Inventory.expects(Order(*order), *step)).collect()
    }

    fn line(events: &[(u32, u8)]) -> Line {
        let mut account = Account::new(Who::Inventory, ORDERS);
        for (order, step) in events {
            account.enter(&seen(*order, *step), 1);
        }
        account.line()
    }

    #[test]
    fn everything_once_and_in_order_is_correct() {
        let line = line(&full());
        assert!(line.correct, "{line:?}");
        assert_eq!((line.expected, line.orders), (line.received, line.in_order));
    }

    #[test]
    fn every_flaw_is_seen() {
        let good = full();
        let without = line(&good[1..]);
        assert!(!without.correct && without.lost == 1);
        let doubled = line(&[&good[..], &good[..1]].concat());
        assert!(!doubled.correct && doubled.twice == 1);
        let mut swapped = good.clone();
        swapped.swap(0, good.len() - 1);
        assert!(!line(&swapped).correct && line(&swapped).lost == 0);
        let foreign = line(&[&good[..], &[(5, 1)]].concat());
        assert!(!foreign.correct && foreign.unexpected == 1);
    }

    #[test]
    fn seeing_too_much_is_a_flaw() {
        let mut account = Account::new(Who::Inventory, ORDERS);
        account.enter(&Order(0).event(1), 1);
        assert_eq!(account.line().misshapen, 1);
    }
}
