mock_provider "aws" {
  source = "./tests/mocks"
}

variables {
  image_parameter   = "/aws/service/debian/release/12/latest/amd64"
  instance_profile  = "pictures-trainer"
  instance_type     = "m5.2xlarge"
  kms_key_arn       = "arn:aws:kms:us-east-1:123456789012:key/00000000-0000-0000-0000-000000000000"
  name              = "pictures"
  security_group_id = "sg-0123456789abcdef0"
  subnet_ids        = ["subnet-0000000000000000a", "subnet-0000000000000000b"]
  user_data         = "#cloud-config\n"
}

run "a_hardened_box_that_is_not_there_yet" {
  command = plan

  module {
    source = "./modules/trainer"
  }

  assert {
    condition     = aws_autoscaling_group.this.min_size == 0 && aws_autoscaling_group.this.max_size == 1 && aws_autoscaling_group.this.desired_capacity == 0
    error_message = "No box until someone asks for one, and never two."
  }

  assert {
    condition = (
      aws_launch_template.this.metadata_options[0].http_tokens == "required"
      && aws_launch_template.this.metadata_options[0].http_put_response_hop_limit == 1
      && aws_launch_template.this.metadata_options[0].http_endpoint == "enabled"
    )
    error_message = "IMDSv2 only, one hop."
  }

  assert {
    condition = (
      aws_launch_template.this.block_device_mappings[0].device_name == "/dev/xvda"
      && aws_launch_template.this.block_device_mappings[0].ebs[0].encrypted == "true"
      && aws_launch_template.this.block_device_mappings[0].ebs[0].kms_key_id == var.kms_key_arn
      && aws_launch_template.this.block_device_mappings[0].ebs[0].volume_type == "gp3"
    )
    error_message = "The image's own root volume is gp3, encrypted with the stack's key."
  }

  assert {
    condition = (
      aws_launch_template.this.network_interfaces[0].associate_public_ip_address == "false"
      && toset(aws_launch_template.this.network_interfaces[0].security_groups) == toset([var.security_group_id])
    )
    error_message = "No public address, and the one security group."
  }

  assert {
    condition     = aws_launch_template.this.image_id == "ami-0123456789abcdef0" && aws_launch_template.this.instance_type == "m5.2xlarge" && aws_launch_template.this.monitoring[0].enabled
    error_message = "The parameter's image, the type asked for, detailed monitoring."
  }

  assert {
    condition     = base64decode(aws_launch_template.this.user_data) == var.user_data && aws_launch_template.this.iam_instance_profile[0].name == "pictures-trainer"
    error_message = "The box runs the user-data under the trainer's role."
  }

  assert {
    condition     = aws_cloudwatch_log_group.this.name == "/pictures/trainer" && aws_cloudwatch_log_group.this.kms_key_id == var.kms_key_arn && aws_cloudwatch_log_group.this.retention_in_days == 365
    error_message = "Its log group is encrypted and keeps a year."
  }
}

run "on_demand_unless_asked" {
  command = plan

  module {
    source = "./modules/trainer"
  }

  assert {
    condition     = length(aws_launch_template.this.instance_market_options) == 0
    error_message = "Spot is a choice."
  }
}

run "spot_by_the_launch_template_of_the_same_group" {
  command = plan

  module {
    source = "./modules/trainer"
  }

  variables {
    spot = true
  }

  assert {
    condition     = aws_launch_template.this.instance_market_options[0].market_type == "spot" && length(aws_launch_template.this.instance_market_options[0].spot_options) == 0
    error_message = "A one-time spot request: an Auto Scaling group takes no persistent one."
  }

  assert {
    condition     = aws_autoscaling_group.this.capacity_rebalance == null || aws_autoscaling_group.this.capacity_rebalance == false
    error_message = "A rebalance recommendation is no reason to interrupt a training."
  }
}

run "sixteen_kilobytes_of_user_data_pass" {
  command = plan

  module {
    source = "./modules/trainer"
  }

  variables {
    user_data = format("%16384s", "x")
  }

  assert {
    condition     = local.user_data_bytes == 16384
    error_message = "The size is counted in bytes before base64."
  }
}

run "one_byte_more_does_not" {
  command = plan

  module {
    source = "./modules/trainer"
  }

  variables {
    user_data = format("%16385s", "x")
  }

  expect_failures = [aws_launch_template.this]
}

run "bytes_count_and_not_characters" {
  command = plan

  module {
    source = "./modules/trainer"
  }

  variables {
    user_data = replace(format("%8193s", ""), " ", "é")
  }

  expect_failures = [aws_launch_template.this]
}

run "refuses_wrong_values" {
  command = plan

  module {
    source = "./modules/trainer"
  }

  variables {
    image_parameter = "ami-0123456789abcdef0"
    instance_type   = "ml.m5.2xlarge"
    volume_size_gib = 8
  }

  expect_failures = [var.image_parameter, var.instance_type, var.volume_size_gib]
}
