#![allow(clippy::unwrap_used)]
use edge_nas::bounded::*;
use edge_nas::record::*;
use edge_nas::space::*;
use edge_nas::train::*;
use nas_exporters::*;
use std::time::Instant;
use tch::{Device, Kind, Tensor};
fn main() {
    fix(Threads::of(1), 0);
    let t = Instant::now();
    println!("auto: {:?} in {:?}", Arithmetic::Auto.decide(), t.elapsed());
    if let Ok(n) = std::env::var("ONLY") {
        let net = if n == "mn" { Network::baseline("mobilenet_v2", Baseline { width: Width::of(0.5), input: Shape::new(3, 32, 32), classes: 10 }).unwrap() } else { todo!() };
        let n = Net::new(net.graph(), Placement::default());
        let mut s = Sgd::new(n.trainable().map(|(p, t)| (p.name.clone(), t, 5e-4)), 0.9);
        let x = Tensor::randn([64, 3, 32, 32], (Kind::Float, Device::Cpu));
        let x = x.permute([0, 2, 3, 1]).contiguous().permute([0, 3, 1, 2]);
        let y = Tensor::randint(10, [64], (Kind::Int64, Device::Cpu));
        for _ in 0..40 {
                let t = Instant::now();
                let l = n.forward(&x, true).cross_entropy_for_logits(&y);
                s.zero_grad();
                let f = t.elapsed().as_secs_f64();
                l.backward();
                println!("{f:.3} {:.3}", t.elapsed().as_secs_f64());
                s.step(0.01);
        }
        return;
    }
    let networks = Networks::new(SearchSpace::load("chain").unwrap(), Shape::new(3, 32, 32), [10]).unwrap();
    let g = Genotype::parse(networks, "conv_3x3,skip,conv_3x3,conv_3x3,conv_3x3,conv_3x3").unwrap();
    let mn = Network::baseline("mobilenet_v2", Baseline { width: Width::of(0.5), input: Shape::new(3, 32, 32), classes: 10 }).unwrap();
    let f = Floats::default();
    let b = Float::Bf16;
    let all = [f, Floats { dense: b, ..f }, Floats { pointwise: b, ..f }, Floats { depthwise: b, ..f }, Floats { dense: b, pointwise: b, ..f }, Floats { dense: b, pointwise: b, depthwise: b }];
    let x = Tensor::randn([64, 3, 32, 32], (Kind::Float, Device::Cpu));
    let x = x.permute([0, 2, 3, 1]).contiguous().permute([0, 3, 1, 2]);
    let y = Tensor::randint(10, [64], (Kind::Int64, Device::Cpu));
    for net in [Network::Genotype(g), mn] {
        let graph = net.graph();
        let mut nets: Vec<_> = all.iter().map(|&floats| {
            let n = Net::new(graph.clone(), Placement { floats, ..Placement::default() });
            let s = Sgd::new(n.trainable().map(|(p, t)| (p.name.clone(), t, 5e-4)), 0.9);
            (n, s, vec![], vec![])
        }).collect();
        for round in 0..13 {
            for (n, s, times, opt) in &mut nets {
                let t = Instant::now();
                let l = n.forward(&x, true).cross_entropy_for_logits(&y);
                s.zero_grad();
                l.backward();
                let o = Instant::now();
                s.step(0.01);
                if round > 2 {
                    opt.push(o.elapsed().as_secs_f64() * 1e3);
                    times.push(t.elapsed().as_secs_f64() * 1e3);
                }
            }
        }
        for ((_, _, times, opt), floats) in nets.iter_mut().zip(&all) {
            times.sort_by(f64::total_cmp);
            opt.sort_by(f64::total_cmp);
            println!("{} {:6.1} ms (sgd {:.2}) {floats}", net.name(), times[5], opt[5]);
        }
    }
}
