mock_provider "aws" {}

variables {
  image_uri            = "123456789012.dkr.ecr.us-east-1.amazonaws.com/hosting:1"
  instance_type        = "ml.m5.xlarge"
  kms_key_arn          = "arn:aws:kms:us-east-1:123456789012:key/00000000-0000-0000-0000-000000000000"
  model_data_url       = "s3://artifacts/releases/0000/model.tar.gz"
  name                 = "classifier"
  role_arn             = "arn:aws:iam::123456789012:role/classifier-hosting"
  rollback_alarm_names = ["classifier-endpoint-server-errors", "classifier-endpoint-model-latency"]
  security_group_id    = "sg-1"
  subnet_ids           = ["subnet-1", "subnet-2"]
}

run "model_is_isolated_and_in_the_network" {
  command = plan
  module { source = "./modules/endpoint" }

  assert {
    condition     = aws_sagemaker_model.this.enable_network_isolation
    error_message = "The model's containers reach the network."
  }
  assert {
    condition     = aws_sagemaker_model.this.vpc_config[0].subnets == toset(["subnet-1", "subnet-2"])
    error_message = "The model is not in the VPC's subnets."
  }
  assert {
    condition     = aws_sagemaker_endpoint_configuration.this.kms_key_arn == var.kms_key_arn
    error_message = "The volumes are not encrypted with the stack's key."
  }
}

run "rollback_is_configured_from_the_first_apply" {
  command = plan
  module { source = "./modules/endpoint" }

  assert {
    condition = toset([
      for alarm in one(one(aws_sagemaker_endpoint.this.deployment_config).auto_rollback_configuration).alarms : alarm.alarm_name
    ]) == toset(var.rollback_alarm_names)
    error_message = "The endpoint does not roll back on the alarms."
  }
  assert {
    condition     = one(one(one(aws_sagemaker_endpoint.this.deployment_config).blue_green_update_policy).traffic_routing_configuration).type == "ALL_AT_ONCE"
    error_message = "A single instance cannot be a canary."
  }
}

run "two_instances_begin_with_a_canary_of_one" {
  command = plan
  module { source = "./modules/endpoint" }

  variables {
    instance_count = 2
  }

  assert {
    condition     = one(one(one(aws_sagemaker_endpoint.this.deployment_config).blue_green_update_policy).traffic_routing_configuration).type == "CANARY"
    error_message = "Two instances should be exchanged by canary."
  }
  assert {
    condition = one(one(one(one(aws_sagemaker_endpoint.this.deployment_config).blue_green_update_policy).traffic_routing_configuration).canary_size) == {
      type  = "INSTANCE_COUNT"
      value = 1
    }
    error_message = "AWS refuses a canary above half of the instances."
  }
}

run "first_release" {
  module { source = "./modules/endpoint" }
}

run "another_release_makes_another_model" {
  command = plan
  module { source = "./modules/endpoint" }

  variables {
    model_data_url = "s3://artifacts/releases/1111/model.tar.gz"
  }

  assert {
    condition     = aws_sagemaker_model.this.name != run.first_release.model_name
    error_message = "The new model would take the name of the old one, which still exists."
  }
}

run "other_subnets_make_another_model" {
  command = plan
  module { source = "./modules/endpoint" }

  variables {
    subnet_ids = ["subnet-3", "subnet-4"]
  }

  assert {
    condition     = aws_sagemaker_model.this.name != run.first_release.model_name
    error_message = "The new model would take the name of the old one, which still exists."
  }
}

run "refuses_an_endpoint_without_rollback_alarms" {
  command = plan
  module { source = "./modules/endpoint" }

  variables {
    rollback_alarm_names = []
  }
  expect_failures = [var.rollback_alarm_names]
}

run "refuses_an_archive_that_is_no_s3_uri" {
  command = plan
  module { source = "./modules/endpoint" }

  variables {
    model_data_url = "releases/0000/model.tar.gz"
  }
  expect_failures = [var.model_data_url]
}
