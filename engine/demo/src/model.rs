//! The demo's orders: what they hold, the events about them, and who has to see which of these.
//!
//! Everything follows from an order's number, so that what each subscriber must get is known without asking anybody.

use serde::Serialize;
use serde_json::{Value, json};

/// The life of every order, in this order.
pub(crate) const STEPS: [&str; 5] = ["created", "paid", "shipped", "received", "completed"];
/// The step from which on an order counts as paid.
const PAID_STEP: u8 = 2;
/// Header with the time at which the order service published, in microseconds of the demo's clock.
pub(crate) const SENT_HEADER: &str = "sent-us";
/// What payment may see of an order.
pub(crate) const PAYMENT_SEES: [&str; 5] = ["amount", "order", "ships", "step", "type"];
/// What inventory sees of an order.
pub(crate) const INVENTORY_SEES: [&str; 4] = ["items", "order", "step", "type"];
/// What payment publishes, and logistics gets.
pub(crate) const LOGISTICS_SEES: [&str; 6] = ["amount", "order", "paid", "ships", "step", "type"];

/// An order by its number.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Order(pub(crate) u32);

#[derive(Serialize)]
struct Item {
    sku: String,
    quantity: u32,
}

impl Order {
    /// Its id, which is the key of all its events.
    pub(crate) fn id(self) -> String {
        format!("order-{:06}", self.0)
    }

    /// The order of an id.
    pub(crate) fn of_id(id: &str) -> Option<Self> {
        id.strip_prefix("order-")?.parse().ok().map(Self)
    }

    /// What is to be paid, in cents. One order in ten is free.
    fn amount(self) -> u32 {
        if self.0 % 10 == 3 { 0 } else { 100 + self.0.wrapping_mul(37) % 9_900 }
    }

    /// What is in it. One order in eight is a voucher, with nothing to pack.
    fn items(self) -> Vec<Item> {
        let kinds = if self.0 % 8 == 5 { 0 } else { 1 + self.0 % 3 };
        (0..kinds)
            .map(|kind| Item { sku: format!("sku-{}", (self.0 + kind) % 100), quantity: 1 + kind })
            .collect()
    }

    /// Whether it is sent. Vouchers are not, and one order in four is picked up.
    fn ships(self) -> bool {
        !self.items().is_empty() && self.0 % 4 != 2
    }

    /// What the order service publishes when the order reaches a step, from 1.
    pub(crate) fn event(self, step: u8) -> Value {
        let items = self.items();
        json!({
            "type": format!("order.{}", STEPS[usize::from(step) - 1]),
            "order": self.id(),
            "step": step,
            "amount": self.amount(),
            "ships": self.ships(),
            "item_count": items.len(),
            "items": items,
            "customer": { "name": format!("Customer {}", self.0), "address": format!("{} Canal Street", self.0) },
            "card": format!("tok-{:08x}", self.0),
        })
    }
}

/// Who subscribes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Who {
    Payment,
    Inventory,
    Logistics,
}

impl Who {
    /// All of them.
    pub(crate) const ALL: [Self; 3] = [Self::Payment, Self::Inventory, Self::Logistics];

    /// Its name, and that of its subscription.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Payment => "payment",
            Self::Inventory => "inventory",
            Self::Logistics => "logistics",
        }
    }

    /// Whether it has to get this step of this order.
    pub(crate) fn expects(self, order: Order, step: u8) -> bool {
        match self {
            Self::Payment => order.amount() > 0,
            Self::Inventory => !order.items().is_empty(),
            Self::Logistics => order.amount() > 0 && order.ships() && step >= PAID_STEP,
        }
    }

    /// The fields that it may see, in order of their names.
    pub(crate) fn sees(self) -> &'static [&'static str] {
        match self {
            Self::Payment => &PAYMENT_SEES,
            Self::Inventory => &INVENTORY_SEES,
            Self::Logistics => &LOGISTICS_SEES,
        }
    }
}

/// What payment publishes after an order's step, made of what it sees.
pub(crate) fn payment_event(seen: &Value, step: u8) -> Value {
    json!({
        "type": if step == PAID_STEP { "payment.captured" } else { "payment.noted" },
        "order": seen["order"],
        "step": step,
        "paid": step >= PAID_STEP,
        "amount": seen["amount"],
        "ships": seen["ships"],
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_subscriber_is_spared_some_orders() {
        for who in Who::ALL {
            let expected = (0..1_000).filter(|number| who.expects(Order(*number), 2)).count();
            assert!((300..1_000).contains(&expected), "{}: {expected}", who.name());
        }
        assert!(!Who::Logistics.expects(Order(0), 1));
    }

    #[test]
    fn ids_name_their_order() {
        assert_eq!(Order::of_id(&Order(42).id()).map(|order| order.0), Some(42));
        assert!(Order::of_id("invoice-1").is_none());
    }

    #[test]
    fn payment_tells_what_logistics_sees() {
        let published = payment_event(&Order(1).event(2), 2);
        let fields: Vec<&str> = published.as_object().unwrap().keys().map(String::as_str).collect();
        assert_eq!(fields, LOGISTICS_SEES);
    }
}
