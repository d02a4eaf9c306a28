//! Where stages compute: on the device that was asked for, or not at all.

use crate::toys::bench::Bench;

fn on(device: &str) -> String {
    format!("  data: {{uses: numbers}}\n  image: {{uses: embed, device: {device}, inputs: data}}\n")
}

fn refusal(bench: &Bench, stages: &str) -> String {
    bench.plan(stages).err().map(|error| error.to_string()).unwrap_or_default()
}

#[test]
fn a_device_that_is_not_there_is_an_error_and_no_reason_to_compute_elsewhere() {
    let mut bench = Bench::new();
    assert_eq!(refusal(&bench, &on("cuda")), "stage `image` asks for device `cuda:0`: this machine has cpu");
    bench.gpus = Err("this program was built without CUDA".to_owned());
    assert_eq!(
        refusal(&bench, &on("cuda:1")),
        "stage `image` asks for device `cuda:1`: this program was built without CUDA"
    );
    bench.gpus = Ok(vec!["cuda/f32/sm_90".to_owned(); 2]);
    assert_eq!(
        refusal(&bench, &on("cuda:2")),
        "stage `image` asks for device `cuda:2`: this machine has cpu, cuda:0, cuda:1"
    );
    let cheap = on("cuda") + "  weighed: {uses: weigh, device: cuda, inputs: image}\n";
    let expected = "stage `weighed` asks for device `cuda:0`: the kind `weigh` computes nothing on a GPU";
    assert_eq!(refusal(&bench, &cheap), expected);
}

#[test]
fn results_belong_to_the_sort_of_device_that_computed_them() {
    let mut bench = Bench::new();
    bench.gpus = Ok(vec!["cuda/f32/sm_90".to_owned(); 2]);
    assert_eq!(bench.run(&on("cpu")).tasks.executed, 3);
    assert_eq!(bench.run(&on("cuda:0")).tasks.executed, 3, "a GPU gives other last bits");
    assert_eq!(bench.run(&on("cuda:1")).tasks.executed, 0, "an equal GPU gives the same");
    let environment = bench.wait(bench.store().records().run("latest")).unwrap().environment;
    assert_eq!(environment["devices"], serde_json::json!(["cpu", "cuda:0", "cuda:1"]));
}
