# A box that trains once and takes itself away: set the group's desired capacity to 1.

data "aws_ssm_parameter" "image" {
  name = var.image_parameter
}

# Debian's root device is /dev/xvda, Ubuntu's /dev/sda1: a mapping for the wrong one would leave the root unencrypted.
data "aws_ami" "image" {
  filter {
    name   = "image-id"
    values = [local.image_id]
  }
}

locals {
  # A public parameter is no secret, though the provider marks every parameter as one.
  image_id = nonsensitive(data.aws_ssm_parameter.image.value)

  encoded         = base64encode(var.user_data)
  user_data_bytes = length(local.encoded) / 4 * 3 - length(regexall("=", local.encoded))
  user_data_limit = 16384
}

resource "aws_launch_template" "this" {
  name                   = "${var.name}-trainer"
  description            = "Trains once, uploads the archive and terminates itself"
  ebs_optimized          = true
  image_id               = local.image_id
  instance_type          = var.instance_type
  update_default_version = true
  user_data              = local.encoded

  block_device_mappings {
    device_name = data.aws_ami.image.root_device_name

    ebs {
      delete_on_termination = true
      encrypted             = true
      kms_key_id            = var.kms_key_arn
      volume_size           = var.volume_size_gib
      volume_type           = "gp3"
    }
  }

  iam_instance_profile {
    name = var.instance_profile
  }

  # One-time, the only kind an Auto Scaling group takes: what EC2 takes back, the group itself replaces.
  dynamic "instance_market_options" {
    for_each = var.spot ? [1] : []

    content {
      market_type = "spot"
    }
  }

  metadata_options {
    http_endpoint               = "enabled"
    http_put_response_hop_limit = 1
    http_tokens                 = "required"
  }

  monitoring {
    enabled = true
  }

  network_interfaces {
    associate_public_ip_address = false
    delete_on_termination       = true
    security_groups             = [var.security_group_id]
  }

  # What a launch makes is tagged here; the provider's default tags do not reach it.
  tag_specifications {
    resource_type = "instance"
    tags          = { Name = "${var.name}-trainer" }
  }

  tag_specifications {
    resource_type = "volume"
    tags          = { Name = "${var.name}-trainer" }
  }

  lifecycle {
    precondition {
      condition     = local.user_data_bytes <= local.user_data_limit
      error_message = "The trainer's user-data is ${local.user_data_bytes} bytes, EC2 takes ${local.user_data_limit}: shorten trainer_hyperparameters, or move what the box runs into the training code's archive, which it fetches from S3."
    }
  }
}

resource "aws_autoscaling_group" "this" {
  name                      = "${var.name}-trainer"
  min_size                  = 0
  max_size                  = 1
  desired_capacity          = 0
  health_check_type         = "EC2"
  vpc_zone_identifier       = var.subnet_ids
  wait_for_capacity_timeout = "0"

  launch_template {
    id      = aws_launch_template.this.id
    version = aws_launch_template.this.latest_version
  }

  tag {
    key                 = "Name"
    value               = "${var.name}-trainer"
    propagate_at_launch = false
  }

  # A box logs from its first minute.
  depends_on = [aws_cloudwatch_log_group.this]

  lifecycle {
    # Whoever wants a training sets it to 1, and the box sets it back to 0: neither is Terraform's to undo.
    ignore_changes = [desired_capacity]
  }
}

resource "aws_cloudwatch_log_group" "this" {
  name              = "/${var.name}/trainer"
  kms_key_id        = var.kms_key_arn
  retention_in_days = var.log_retention_days
}
