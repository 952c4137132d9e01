locals {
  # Everything that AWS cannot change in place on a model goes into its name: a new value then makes a new model beside
  # the old one, and create_before_destroy never meets a name that is already taken.
  model_fingerprint = substr(sha256(jsonencode([
    var.model_data_url, var.image_uri, var.container_environment,
    var.role_arn, sort(var.subnet_ids), var.security_group_id,
  ])), 0, 12)

  # A canary may hold at most half of the instances, so a single instance can only be exchanged at once.
  canary = var.instance_count >= 2
}

resource "aws_sagemaker_model" "this" {
  name                     = "${var.name}-${local.model_fingerprint}"
  execution_role_arn       = var.role_arn
  enable_network_isolation = true

  primary_container {
    image          = var.image_uri
    model_data_url = var.model_data_url
    environment    = var.container_environment
  }

  vpc_config {
    security_group_ids = [var.security_group_id]
    subnets            = var.subnet_ids
  }

  lifecycle {
    create_before_destroy = true
  }
}

resource "aws_sagemaker_endpoint_configuration" "this" {
  name_prefix = "${var.name}-"
  kms_key_arn = var.kms_key_arn

  production_variants {
    variant_name           = var.variant_name
    model_name             = aws_sagemaker_model.this.name
    instance_type          = var.instance_type
    initial_instance_count = var.instance_count
    initial_variant_weight = 1
  }

  lifecycle {
    create_before_destroy = true
  }
}

resource "aws_sagemaker_endpoint" "this" {
  name                 = var.name
  endpoint_config_name = aws_sagemaker_endpoint_configuration.this.name

  # Present from the first apply: adding the rollback configuration later would replace the endpoint.
  deployment_config {
    auto_rollback_configuration {
      dynamic "alarms" {
        for_each = var.rollback_alarm_names
        content {
          alarm_name = alarms.value
        }
      }
    }

    blue_green_update_policy {
      maximum_execution_timeout_in_seconds = var.deployment_timeout_seconds
      termination_wait_in_seconds          = 0

      traffic_routing_configuration {
        type                     = local.canary ? "CANARY" : "ALL_AT_ONCE"
        wait_interval_in_seconds = var.baking_seconds

        dynamic "canary_size" {
          for_each = local.canary ? [1] : []
          content {
            type  = "INSTANCE_COUNT"
            value = 1
          }
        }
      }
    }
  }

  lifecycle {
    # AWS calls a rolled-back deployment a success: the endpoint is InService, on the configuration it had before.
    postcondition {
      condition     = self.endpoint_config_name == aws_sagemaker_endpoint_configuration.this.name
      error_message = "Endpoint ${self.name} rolled back: it serves ${self.endpoint_config_name}, not the new ${aws_sagemaker_endpoint_configuration.this.name}. Nothing was deleted and the old release still answers. Read the log group /aws/sagemaker/Endpoints/${self.name} and the alarms ${join(", ", var.rollback_alarm_names)}, correct the release, and apply again."
    }
  }
}
