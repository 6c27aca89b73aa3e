//! The metrics that say how far a subscription is from having nothing left to deliver: who takes its events, how fast, and
//! what it has lost.

use levada_protocol::{ids::Timestamp, request::SubscriptionInfo};

use super::series::{Series, as_f64};

/// One series for each.
#[derive(Debug)]
pub(super) struct Standing {
    lost: Series,
    consumers: Series,
    in_flight: Series,
    arriving: Series,
    settling: Series,
    clears: Series,
    retry: Series,
    unattended: Series,
    alarm: Series,
}

impl Standing {
    pub(super) fn new() -> Self {
        Self {
            lost: Series::counter(
                "levada_subscription_lost_events_total",
                "events dropped before they were acknowledged, since the subscription was made",
            ),
            consumers: Series::gauge("levada_subscription_consumers", "attached consumers"),
            in_flight: Series::gauge(
                "levada_subscription_in_flight_events",
                "events delivered and not yet acknowledged",
            ),
            arriving: Series::gauge(
                "levada_subscription_arriving_events_per_second",
                "events appended to the topic in a second, over the last minute",
            ),
            settling: Series::gauge(
                "levada_subscription_settling_events_per_second",
                "events that came to their end in a second, over the last minute, without those that were lost",
            ),
            clears: Series::gauge(
                "levada_subscription_clears_in_seconds",
                "until there is no lag, if both rates stay as they are; absent if the lag does not shrink or no consumer is attached",
            ),
            retry: Series::gauge(
                "levada_subscription_retry_in_seconds",
                "until the failed event that the subscription waits for is due; absent if it waits for none",
            ),
            unattended: Series::gauge(
                "levada_subscription_unattended_seconds",
                "for how long no consumer has been attached; absent while one is",
            ),
            alarm: Series::gauge(
                "levada_subscription_alarm",
                "1 for what somebody should look at; absent if there is nothing",
            ),
        }
    }

    /// Adds a subscription that is so at this time of day.
    pub(super) fn add(&mut self, labels: &[(&'static str, &str)], info: &SubscriptionInfo, now: Timestamp) {
        self.lost.add(labels, as_f64(info.events_lost));
        self.consumers.add(labels, as_f64(info.consumers.len() as u64));
        self.in_flight.add(labels, as_f64(info.in_flight));
        self.arriving.add(labels, info.arriving_per_s);
        self.settling.add(labels, info.settling_per_s);
        if let Some(clears_in_ms) = info.clears_in_ms {
            self.clears.add(labels, as_f64(clears_in_ms) / 1_000.0);
        }
        if let Some(until_ms) = info.waiting_for.until_ms() {
            self.retry.add(labels, as_f64(until_ms.saturating_sub(now.0)) / 1_000.0);
        }
        if let Some(for_ms) = info.unattended_for_ms {
            self.unattended.add(labels, as_f64(for_ms) / 1_000.0);
        }
        for alarm in &info.alarms {
            self.alarm.add(&[labels, &[("alarm", alarm.as_str())]].concat(), 1.0);
        }
    }

    /// All of them, in a fixed order.
    pub(super) fn into_series(self) -> [Series; 9] {
        let Self { lost, consumers, in_flight, arriving, settling, clears, retry, unattended, alarm } = self;
        [lost, consumers, in_flight, arriving, settling, clears, retry, unattended, alarm]
    }
}

#[cfg(test)]
mod tests {
    use levada_protocol::request::{Alarm, Retry, WaitingFor};

    use super::*;

    /// The samples of what is so at second 100, without `levada_subscription_` before their names.
    fn samples(info: &SubscriptionInfo) -> Vec<(&'static str, f64)> {
        let mut standing = Standing::new();
        standing.add(&[("subscription", "orders/s")], info, Timestamp(100_000));
        let series = standing.into_series().into_iter();
        let sample = |series: Series| {
            let name = series.name.strip_prefix("levada_subscription_").unwrap();
            series.samples.into_iter().map(move |sample| (name, sample.value))
        };
        series.flat_map(sample).collect()
    }

    #[test]
    fn each_fact_has_its_metric_and_what_is_not_known_has_none() {
        let mut info = SubscriptionInfo::new("orders".parse().unwrap(), "s".parse().unwrap());
        info.consumers = vec!["one".to_owned(), "two".to_owned()];
        (info.events_lost, info.in_flight) = (100, 7);
        (info.arriving_per_s, info.settling_per_s) = (1.5, 4.5);
        let always = [
            ("lost_events_total", 100.0),
            ("consumers", 2.0),
            ("in_flight_events", 7.0),
            ("arriving_events_per_second", 1.5),
            ("settling_events_per_second", 4.5),
        ];
        assert_eq!(samples(&info), always);
        let retry = Retry { partition: 0, offset: 3, attempts: 1, at_ms: 104_500 };
        info.clears_in_ms = Some(2_500);
        info.waiting_for = WaitingFor::Keys { events: 5, oldest: None, retry: Some(retry) };
        assert_eq!(samples(&info)[5..], [("clears_in_seconds", 2.5), ("retry_in_seconds", 4.5)]);
        info.waiting_for = WaitingFor::Retry(Retry { at_ms: 99_000, ..retry });
        assert_eq!(samples(&info)[6..], [("retry_in_seconds", 0.0)], "it is due");
        (info.unattended_for_ms, info.alarms) = (Some(90_500), vec![Alarm::Unattended]);
        assert_eq!(samples(&info)[7..], [("unattended_seconds", 90.5), ("alarm", 1.0)]);
    }
}
